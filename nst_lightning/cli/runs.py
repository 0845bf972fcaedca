"""``nst runs``: lists the runs below a folder, and frees what finished ones no longer need."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from nst_lightning.cli.plain import PlainParser, end_with_the_reader
from nst_lightning.errors import UserError
from nst_lightning.files.paths import expand
from nst_lightning.runs.listing import Run, held, list_runs


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = PlainParser(
        prog="nst runs",
        description="List runs, newest first, or free the disk of checkpoints. Results are never removed.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="clean, or names of runs",
        help="nothing for all runs; names of runs for these; clean, alone or before names, to remove checkpoints: of "
        "finished runs, or of the runs named, in whatever state",
    )
    parser.add_argument("--root", default="runs", help="folder that the runs lie in (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="list for programs")
    parser.add_argument(
        "--older_than", type=float, metavar="DAYS", help="clean: runs that ended so long ago, in whatever state"
    )
    parser.add_argument("--yes", action="store_true", help="clean: remove; without it only say what would be removed")
    options = parser.parse_args(list(args))
    options.clean = options.what[:1] == ["clean"]
    options.names = options.what[options.clean :]
    options.root = expand(options.root, "--root")
    if not options.root.is_dir():
        raise UserError(f"--root: must be the folder of runs, got '{options.root}', which is none; give another")
    if options.older_than is not None and not 0 <= options.older_than < 1e6:
        raise UserError(f"--older_than: must be a number of days, got {options.older_than}; 30 is a good start")
    for name in ("yes", "older_than"):
        if getattr(options, name) and not options.clean:
            raise UserError(f"--{name}: must come with clean, got it alone; nst runs clean --{name}")
    if options.json and options.clean:
        raise UserError("--json: must be left out with clean, got both; list the runs with it")
    return options


def main(args: Sequence[str]) -> int:
    """Run ``nst runs`` with the command line after the subcommand; returns the exit code."""
    options = _parse(args)
    end_with_the_reader()
    runs = _chosen(list_runs(options.root), options.names, options.root)
    if options.clean:
        _clean(runs, options)
    elif options.json:
        print(json.dumps([_facts(run) for run in runs], indent=1, default=_plain))  # noqa: T201
    else:
        for run in runs:
            print("\n".join(_lines(run)))  # noqa: T201
        total, kept = sum(run.bytes for run in runs), sum(run.checkpoint_bytes for run in runs)
        free = "; nst runs clean frees those of finished runs" if kept else ""
        print(f"{len(runs)} runs, {_size(total)}, of which checkpoints {_size(kept)}{free}")  # noqa: T201
    return 0


def _chosen(runs: list[Run], names: Sequence[str], root: Path) -> list[Run]:
    by_name = {run.folder.name: run for run in runs}
    wanted = [Path(name).name for name in names]
    for name in wanted:
        if name not in by_name:
            there = f"there are {', '.join(list(by_name)[:5])}" if by_name else "there are none"
            raise UserError(f"runs: must be of those below '{root}', got '{name}'; {there}")
    return [by_name[name] for name in dict.fromkeys(wanted)] if wanted else runs


def _clean(runs: list[Run], options: argparse.Namespace) -> None:
    anyhow = bool(options.names) or options.older_than is not None
    before = datetime.now(timezone.utc) - timedelta(days=options.older_than or 0)
    count = freed = 0
    for run in runs:
        with held(run.folder) as free:  # so that it does not go on from what is just being removed
            if not free or run.state == "running":
                if options.names:
                    print(f"{run.folder}: is still going on and stays as it is")  # noqa: T201
                continue
            if (run.state not in {"finished", "ended"} and not anyhow) or run.changed > before or not run.checkpoints:
                continue
            size = run.checkpoint_bytes
            if options.yes:
                for path in run.checkpoints:
                    path.unlink(missing_ok=True)
            print(f"{run.folder}: {_size(size)} in {len(run.checkpoints)} checkpoints ({run.state})")  # noqa: T201
            count, freed = count + 1, freed + size
    said = f"freed {_size(freed)}" if options.yes else f"would free {_size(freed)}; add --yes to remove them"
    print(f"{said}, of {count} runs" if options.yes else said)  # noqa: T201


def _lines(run: Run) -> list[str]:
    of = "" if run.of is None else f" of {run.of}"
    reason = f" ({run.reason})" if run.reason else ""
    settings = ", ".join(f"{name} {_words(value)}" for name, value in run.settings.items())
    pictures = " + ".join(Path(path).name for path in [*([run.content] if run.content else []), *run.styles])
    kept = f", checkpoints {_size(run.checkpoint_bytes)}" if run.checkpoints else ""
    date = run.changed.astimezone().strftime("%Y-%m-%d %H:%M")
    return [
        f"{run.folder}  {run.state}{reason}, {run.evaluations}{of} evaluations, {date}, {_size(run.bytes)}{kept}",
        f"    {pictures}; {settings}",
        *([f"    {run.thumbnail}"] if run.thumbnail is not None else []),
    ]


def _words(value: Any) -> str:
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)


def _facts(run: Run) -> dict[str, Any]:
    """A run for programs; `_plain` is for what JSON has no form for."""
    return {"name": run.folder.name, **vars(run), "checkpoint_bytes": run.checkpoint_bytes}


def _plain(value: Any) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
