"""The runs below a folder: what each was made of, what became of it, and how much of the disk it needs."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from nst_lightning.files.paths import PATHS_FROM, absolute
from nst_lightning.runs.folder import CHECKPOINTS, CONFIGURATION, LOCK, RECORD

_LOSSES = "metrics.csv"
_NEUTRAL = 0.5  # a likeness that changes nothing; its own module imports PyTorch, for which no list has to wait


@dataclass
class Run:
    """A run's folder."""

    folder: Path  # where it lies
    state: str  # running, finished, cut short, failed, or ended for runs of earlier versions
    reason: str | None  # what cut it short, or failed
    evaluations: int  # how many it has made
    of: int | None  # how many it was to make; None if that is not known
    changed: datetime  # when it was last written
    content: str | None  # the content's path, None for a texture
    styles: list[str]  # the styles' paths
    settings: dict[str, Any]  # those that matter most and are not as usual
    result: Path | None  # the final picture
    thumbnail: Path | None  # one picture that shows the run: its figure, else the result, else the last snapshot
    bytes: int  # all of it
    # Its checkpoints, and what writing left behind that did not come to its end.
    checkpoints: list[Path] = field(default_factory=list)

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of the checkpoints."""
        return sum(_size(path) for path in self.checkpoints)


def list_runs(root: Path) -> list[Run]:
    """All runs below a folder, newest first."""
    folders = [path.parent for path in root.glob(f"*/{CONFIGURATION}") if not path.parent.is_symlink()]
    return sorted((_read(folder) for folder in folders), key=lambda run: (run.changed, run.folder), reverse=True)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Lock a run folder while the context lasts; gives False if a process works in it already."""
    lock = FileLock(folder / LOCK)
    try:
        if (folder / LOCK).exists():
            lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):  # a folder of someone else's, or a file system without locks
        pass
    try:
        yield True
    finally:
        lock.release()


def _read(folder: Path) -> Run:
    configuration = _loaded(folder / CONFIGURATION)
    record = _loaded(folder / RECORD)
    with held(folder) as free:
        running = not free
    results, snapshots = sorted(folder.glob("result.*")), sorted((folder / "snapshots").glob("*"))
    result = next(iter(results), None)
    state, reason = record.get("state"), record.get("reason")
    if running:
        state, reason = "running", None
    elif state == "running":  # nobody was left to say that it ended
        state, reason = "cut short", "killed"
    elif state is None:
        state = "ended" if result is not None else "cut short"
    pictures = [path for path in (folder / "figure.png", result, *snapshots[-1:]) if path and path.is_file()]
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    written = [path for path in (folder / RECORD, folder / _LOSSES, folder / CONFIGURATION) if path.exists()]
    changed = max((path.stat().st_mtime for path in written), default=folder.stat().st_mtime)
    made = [path for path in files if path.suffix == ".ckpt" and path.parent in {folder, folder / CHECKPOINTS}]
    left = [path for path in files if path.name.startswith(".nst-") and path.suffix == ".tmp"]
    data = _group(configuration, "data")
    begin = Path(str(configuration.get(PATHS_FROM) or Path.cwd()))
    style: Any = data.get("style")
    styles = style if isinstance(style, list) else [style]
    named = [item.get("path") if isinstance(item, dict) else item for item in styles]
    steps, recorded = _last_step(folder / _LOSSES), record.get("evaluations")
    recorded = recorded if isinstance(recorded, int) else 0
    return Run(
        folder=folder,
        state=state,
        reason=reason,
        evaluations=max(recorded, steps) if state in {"running", "cut short"} else steps,
        of=record.get("of"),
        changed=datetime.fromtimestamp(changed, tz=timezone.utc),
        content=_path(begin, data.get("content")),
        styles=[path for path in (_path(begin, name) for name in named) if path is not None],
        settings=_settings(configuration),
        result=result,
        thumbnail=next(iter(pictures), None),
        bytes=sum(_size(path) for path in files),
        checkpoints=sorted([*made, *left]),
    )


def _loaded(path: Path) -> dict[str, Any]:
    """A file in JSON or YAML; nothing if there is none, or it is something else."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _group(configuration: dict[str, Any], name: str) -> dict[str, Any]:
    """A group of a configuration's options, which somebody may have made something else of by hand."""
    found = configuration.get(name)
    return found if isinstance(found, dict) else {}


def _last_step(path: Path) -> int:
    """Evaluations that a table of losses has."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return max((int(row["step"]) for row in csv.DictReader(file)), default=0)
    except (OSError, KeyError, ValueError, TypeError):
        return 0


def _path(begin: Path, name: Any) -> str | None:
    if name is None:
        return None
    return str(name) if str(name).startswith("demo:") else absolute(begin / str(name))


def _settings(configuration: dict[str, Any]) -> dict[str, Any]:
    """What tells one run from another at a glance."""
    data, model = (_group(configuration, name) for name in ("data", "model"))
    stages, terms = model.get("stages"), model.get("terms")
    found = {
        "size": data.get("size"),
        "stages": len(stages) if isinstance(stages, list) else None,
        "strength": None if model.get("strength") == 1 else model.get("strength"),
        "likeness": None if model.get("likeness") == _NEUTRAL else model.get("likeness"),
        "regions": data.get("regions") or None,
        "draft": _network(model.get("draft")),
        "extractor": _network(model.get("extractor")),
        "terms": [str(term.get("class_path", "")).rsplit(".", 1)[-1] for term in terms if isinstance(term, dict)]
        if isinstance(terms, list)
        else None,
        "color": None if data.get("color") == "style" else data.get("color"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _network(setting: Any) -> str | None:
    """The class of a network, without its package."""
    path = setting.get("class_path") if isinstance(setting, dict) else setting
    return str(path).rsplit(".", 1)[-1] if path else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone just now
        return 0
