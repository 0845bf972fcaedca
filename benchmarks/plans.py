"""What runs say that they will take, against what they take: a table for presets, sizes, and ways to be evaluated.

    python benchmarks/plans.py poster:2048:whole poster:8192:10 painterly:1024:512:6

A case is a preset, the long side in pixels, a way to be evaluated, and maybe evaluations of the last stage. A way is
``whole``, ``auto``, the side of tiles in pixels, or a ``--model.memory`` in GiB (any number below 64). Each run is
``nst fit`` in a process of its own, with the stages of the preset: the last one as long as it is, which its history
depends on, the others with one evaluation. ``--idle`` leaves the arithmetic of the network out, not what it holds (see
`idle`): a run then takes a tenth of the time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import yaml

from nst_lightning.cli import main as nst
from nst_lightning.config.presets import beside_package
from nst_lightning.data.schedule import default_stages
from nst_lightning.process.loading import load

SMALLEST_TILE = 64  # a way below this number is GiB
GIB = 2**30


class Case(NamedTuple):
    """A run."""

    preset: str
    size: int
    way: str
    evaluations: int | None = None  # of the last stage; None: the preset's own

    def arguments(self, content: str, style: str, folder: str) -> list[str]:
        """Of ``nst fit``."""
        ways = {"whole": ["--model.tile", "null"], "auto": []}
        limit = ["--model.memory", self.way] if self.way not in ways and float(self.way) < SMALLEST_TILE else []
        how = ways.get(self.way) or limit or (["--model.tile", self.way] if self.way not in ways else [])
        pictures = [f"--data.style={style}", *([] if self.preset == "texture" else [f"--data.content={content}"])]
        return [
            *("fit", "--config", self.preset, "--data.size", str(self.size), *pictures, *how, *self.length()),
            *("--checkpoint_seconds", "0", "--log", "json"),
            *("--trainer.default_root_dir", folder),
        ]

    def length(self) -> list[str]:
        """The arguments that cut all stages but the last one."""
        text = (beside_package("configs") / f"{self.preset}.yaml").read_text(encoding="utf-8")
        model = yaml.safe_load(text)["model"]
        if "stages" not in model and "evaluations" in model:
            return ["--model.evaluations", str(self.evaluations or model["evaluations"])]
        draft = model.get("draft")
        by_default = [
            {"evaluations": s.evaluations, "scale": s.scale, **({"extractor": draft} if s.extractor else {})}
            for s in default_stages(self.size, draft=draft)
        ]
        stages = model.get("stages", by_default)
        for stage in stages[:-1]:
            stage["evaluations"] = 1
        stages[-1]["evaluations"] = self.evaluations or stages[-1]["evaluations"]
        return ["--model.stages", json.dumps(stages)]


class Found(NamedTuple):
    """What a run said and took, in bytes."""

    planned: int
    taken: int
    how: str


def measure(case: Case, content: str, style: str, *, idle: bool) -> Found:
    """Make a run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, *(["--idle"] if idle else []), "--run"]
        command += case.arguments(content, style, folder)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    plan = next((event for event in events if event.get("event") == "plan"), None)
    if plan is None or done.returncode:
        said = events[-1]["text"] if events else lines[-1] if lines else ""
        raise RuntimeError(said or f"exit code {done.returncode}")
    tile = plan["text"].partition(" px in tiles of ")[2].partition(" px")[0]
    lean = plan["text"].partition("history of ")[2].partition(" pairs")[0]
    how = (f"tiles of {tile} px" if tile else "whole") + (f", {lean} pairs in bfloat16" if lean else "")
    return Found(plan["bytes"], int(done.stdout.split()[-1]), how)


def run(arguments: list[str], *, idle: bool) -> None:
    """Be such a run, and print the most that the process took."""
    if idle:
        load("idle").leave_arithmetic_out()
    code = nst(arguments)
    print(load("memory").resident())  # loaded now, as it brings other programs along
    sys.exit(code)


def table(cases: list[Case], one: Callable[[Case], Found]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| preset | px | way | evaluated in | said, GiB | took, GiB | said / took |"
    yield "|---|---|---|---|---|---|---|"
    for case in cases:
        try:
            planned, taken, how = one(case)
        except RuntimeError as error:
            yield f"| {case.preset} | {case.size} | {case.way} | {error} |"
            continue
        ratio = planned / taken
        start = f"| {case.preset} | {case.size} | {case.way} | {how}"
        yield f"{start} | {planned / GIB:.2f} | {taken / GIB:.2f} | {ratio:.2f} |"


def _case(preset: str, size: str, way: str, evaluations: str = "0") -> Case:
    return Case(preset, int(size), way, int(evaluations) or None)


def main() -> None:
    """Make all runs that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", help="preset:size:way, or preset:size:way:evaluations")
    parser.add_argument("--content", default="demo:content")
    parser.add_argument("--style", default="demo:style")
    parser.add_argument("--idle", action="store_true", help="leave the arithmetic out")
    given = parser.parse_args()
    cases = [_case(*text.split(":")) for text in given.cases]
    for line in table(cases, lambda case: measure(case, given.content, given.style, idle=given.idle)):
        print(line, flush=True)


if __name__ == "__main__":
    if "--run" in sys.argv:
        begin = sys.argv.index("--run")
        run(sys.argv[begin + 1 :], idle="--idle" in sys.argv[:begin])
    else:
        main()
