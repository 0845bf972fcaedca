"""``nst presets``: lists the presets, each by the two lines of comment that its file begins with."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence

from nst_lightning.cli.plain import PlainParser, end_with_the_reader
from nst_lightning.config.presets import Preset, presets_folder, read_presets
from nst_lightning.errors import UserError


def main(args: Sequence[str]) -> int:
    """Run ``nst presets`` with the command line after the subcommand; returns the exit code."""
    parser = PlainParser(
        prog="nst presets",
        description="List the presets: what each gives, and what it takes.",
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="these alone, with notes; by default all presets")
    parser.add_argument("--json", action="store_true", help="list for programs")
    options = parser.parse_args(list(args))
    end_with_the_reader()
    presets = _chosen(read_presets(), options.names)
    if options.json:
        facts = [{**preset._asdict(), "path": str(preset.path)} for preset in presets]
        print(json.dumps(facts, indent=1, ensure_ascii=False))  # noqa: T201
        return 0
    for preset in presets:
        notes = preset.notes if options.names else ""
        print("\n    ".join(filter(None, [preset.name, preset.gives, preset.takes, notes])))  # noqa: T201
    if not options.names:
        print(f"nst fit --config NAME takes one; their files: {presets_folder()}")  # noqa: T201
    return 0


def _chosen(presets: list[Preset], names: Sequence[str]) -> list[Preset]:
    by_name = {preset.name: preset for preset in presets}
    for name in names:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=1)
            hint = f"did you mean {near[0]}?" if near else f"presets: {', '.join(by_name)}"
            raise UserError(f"names: must be of the presets, got '{name}'; {hint}")
    return [by_name[name] for name in dict.fromkeys(names)] if names else presets
