"""How long two builds take to the same scores: a preset of each, pair by pair of pictures, in turn.

    git worktree add ../before COMMIT
    python benchmarks/time_to_quality.py --before ../before --contents a.jpg b.jpg --styles x.jpg y.jpg --preset fast

Every content meets every style. For each pair the preset runs as `nst fit` of the build before and of this one, each a
process of its own, one after the other, `--rounds` times. Compared are the whole process' seconds, those of its
evaluations alone, its peak of memory, and scores (`scores.py`): `style`, `unseen` and `patches`, which should be no
lower, and `content`, a distance, which may be `--content` times what it was. With `--along N` this build runs once
more, without a clock, and shows its picture every N evaluations: the first that has the scores of the build before is
when it was reached. `--judges` adds what judges say that nobody optimises (`nst judge`). `--now`
names another preset of this build, which is to do what the one before did. Both builds take the weights
in NST_VGG19_WEIGHTS. Results go to a folder: `time_to_quality.json`, the pictures, and `sheet.jpg` (content, style,
before, after).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from quality import fingerprint, pictures_of, sheet
from scores import judge
from torch import Tensor

from nst_lightning.cli.benchmark import environment
from nst_lightning.config.presets import beside_package
from nst_lightning.features import VGG19, Extractor
from nst_lightning.images import read_image, write_image
from nst_lightning.judging.panel import Panel

RAISED = ("style", "unseen", "patches")


class Run(NamedTuple):
    """A process and what it left."""

    picture: Path
    folder: Path
    seconds: float  # of the whole process
    cpu: float  # seconds of all its threads
    evaluating: list[float]  # seconds since the first evaluation began, at the end of each
    memory: float  # MiB at the peak


def run(source: Path, asked: Sequence[str], folder: Path) -> Run:
    """Run ``nst fit`` of the build in a source tree, with its output in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "result.png"
    command = [sys.executable, "-m", "nst_lightning", "fit", *asked, "--output", str(picture)]
    command += ["--trainer.default_root_dir", str(folder / "runs"), "--trainer.enable_progress_bar", "false"]
    begin = time.perf_counter()
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(source.resolve())}, cwd=folder, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{source}: nst fit ended with exit code {process.returncode}: {said[-500:]}")
    newest = max((folder / "runs").glob("*/metrics.csv"), key=lambda path: path.stat().st_mtime)
    with newest.open(newline="", encoding="utf-8") as file:
        evaluating = [float(row["seconds"]) for row in csv.DictReader(file)]
    return Run(picture, newest.parent, seconds, used.ru_utime + used.ru_stime, evaluating, used.ru_maxrss / 1024)


def is_reached(scores: Mapping[str, float], goal: Mapping[str, float], lower: float, content: float) -> bool:
    """Whether scores are no more than `lower` below a goal's, and the content's distance at most so many times its."""
    raised = all(scores[name] >= goal[name] - lower for name in RAISED)
    return raised and scores["content"] <= content * goal["content"]


class Judge:
    """Scores of a pair's pictures."""

    def __init__(self, network: Extractor, content: Tensor, style: Tensor, panel: Panel | None = None) -> None:
        self._network, self._pair, self._panel = network, (content, style), panel

    def scores(self, path: Path) -> dict[str, float] | None:
        """All scores of a picture; None if it is not of the final size."""
        picture = read_image(path).pixels
        if picture.shape != self._pair[0].shape:
            return None
        return judge(self._network, picture, *self._pair).as_dict()

    def judged(self, path: Path) -> dict[str, float]:
        """What the panel says of a picture; nothing without one."""
        return {} if self._panel is None else self._panel.judge(read_image(path).pixels, *self._pair)


def reached_at(along: Run, referee: Judge, goal: Mapping[str, float], options: argparse.Namespace) -> int | None:
    """The first evaluation that shows a picture with the scores of a goal."""
    for snapshot in sorted((along.folder / "snapshots").iterdir()):
        scores = referee.scores(snapshot)
        if scores is not None and is_reached(scores, goal, options.lower, options.content):
            return int(snapshot.stem)
    return None


def compare(referee: Judge, pictures: Sequence[str], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Both builds on one pair."""
    sources = {"before": options.before, "after": beside_package("nst_lightning").parent}
    presets = {"before": options.preset, "after": options.now or options.preset}
    asked = {name: ["--config", preset, *pictures, *options.options] for name, preset in presets.items()}
    runs: dict[str, list[Run]] = {name: [] for name in sources}
    for turn in range(options.rounds):
        for name in sorted(sources, reverse=bool(turn % 2)):
            runs[name].append(run(sources[name], [*asked[name], "--snapshot_every", "0"], folder / name))
    result: dict[str, Any] = {}
    for name, made in runs.items():
        result[name] = {
            "seconds": statistics.median(one.seconds for one in made),
            "cpu": statistics.median(one.cpu for one in made),
            "evaluating": statistics.median(one.evaluating[-1] for one in made),
            "memory": max(one.memory for one in made),
            "evaluations": len(made[-1].evaluating),
            "scores": referee.scores(made[-1].picture),
            "judged": referee.judged(made[-1].picture),
        }
    before, after = result["before"], result["after"]
    result["ratios"] = {name: after[name] / before[name] for name in ("seconds", "cpu", "evaluating", "memory")}
    result["is_reached"] = is_reached(after["scores"], before["scores"], options.lower, options.content)
    if options.along:
        shown = run(sources["after"], [*asked["after"], "--snapshot_every", str(options.along)], folder / "along")
        at = reached_at(shown, referee, before["scores"], options)
        timed = runs["after"][-1]
        spared = 0 if at is None else timed.evaluating[-1] - timed.evaluating[at - 1]
        result["along"] = {
            "evaluation": at,
            "ratio": None if at is None else (after["seconds"] - spared) / before["seconds"],
        }
    return result


def line(result: Mapping[str, Any]) -> str:
    """A pair's row of the table."""
    before, after, ratios = result["before"]["scores"], result["after"]["scores"], result["ratios"]
    scores = "  ".join(f"{name} {before[name]:.3f} {after[name]:.3f}" for name in (*RAISED, "content"))
    times = f"{result['before']['seconds']:6.1f} s -> {result['after']['seconds']:5.1f} s ({ratios['seconds']:.2f})"
    rest = f"evaluating {ratios['evaluating']:.2f}, memory {ratios['memory']:.2f}"
    along = f", as before at {result['along']['evaluation']}" if "along" in result else ""
    return f"{result['pair']:32} {times}  {rest}{along}  {scores}  {'as good' if result['is_reached'] else 'LOWER'}"


def _before_and_after(
    results: Sequence[Mapping[str, Any]], kind: str, name: str
) -> tuple[list[tuple[float, float]], list[float]]:
    """A score of each pair in both builds, and the two medians."""
    both = [(result["before"][kind][name], result["after"][kind][name]) for result in results]
    return both, [statistics.median(column) for column in zip(*both, strict=True)]


def summary(results: Sequence[Mapping[str, Any]]) -> str:
    """Medians, worst and quartiles of all pairs."""
    lines = []
    for name in ("seconds", "cpu", "evaluating", "memory"):
        values = sorted(result["ratios"][name] for result in results)
        spread = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        lines.append(
            f"{name:11} median {spread[1]:.3f}  quartiles {spread[0]:.3f} {spread[2]:.3f}  worst {values[-1]:.3f}"
        )
    for name in (*RAISED, "content"):
        both, middle = _before_and_after(results, "scores", name)
        change = [after / before if name == "content" else after - before for before, after in both]
        kind = "ratio" if name == "content" else "change"
        lines.append(
            f"{name:11} medians {middle[0]:.3f} {middle[1]:.3f}  {kind} median {statistics.median(change):+.3f}, "
            f"from {min(change):+.3f} to {max(change):+.3f}"
        )
    for name in results[0]["before"]["judged"]:
        _, middle = _before_and_after(results, "judged", name)
        lines.append(f"{name:11} medians {middle[0]:.3f} {middle[1]:.3f}")
    good = sum(result["is_reached"] for result in results)
    return "\n".join([*lines, f"as good as before on {good} of {len(results)} pairs"])


def main() -> None:
    """Run all pairs, write results as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="source tree of the build before")
    parser.add_argument("--contents", nargs="+", type=Path, required=True)
    parser.add_argument("--styles", nargs="+", type=Path, required=True)
    parser.add_argument("--preset", default="painterly")
    parser.add_argument("--now", help="the preset of this build, if it is another one")
    parser.add_argument("--size", type=int, default=512, help="long side in pixels")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="more for both builds; the last option")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--along", type=int, default=0, help="evaluations between two looks; 0 for none")
    parser.add_argument("--lower", type=float, default=0.005, help="what a score may be lower by")
    parser.add_argument("--content", type=float, default=1.03, help="factor that the content's distance may grow by")
    parser.add_argument("--judges", default="", help="such as gram,lpips_alex,cfsd")
    parser.add_argument("--output", type=Path, default=Path("runs/time_to_quality"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    network = VGG19(units="normalised")
    panel = Panel(options.judges.split(",")) if options.judges else None
    results: list[dict[str, Any]] = []
    rows: list[list[Tensor]] = []
    for content in options.contents:
        for style in options.styles:
            pair = f"{content.stem} {style.stem}"
            folder = options.output.resolve() / pair.replace(" ", "_")
            asked = ["--data.content", str(content.resolve()), "--data.style", str(style.resolve())]
            asked += ["--data.size", str(options.size), "--data.side", "long"]
            images = pictures_of(content, style, options.size)
            result = compare(Judge(network, *images, panel), asked, folder, options)
            hashes = {"content_sha256": fingerprint(content), "style_sha256": fingerprint(style)}
            results.append({"pair": pair, **hashes, **result})
            print(line(results[-1]), flush=True)
            rows.append([*images, *(read_image(folder / name / "result.png").pixels for name in ("before", "after"))])
            report = {
                **environment(),
                "preset": options.preset,
                "now": options.now,
                "size": options.size,
                "results": results,
            }
            (options.output / "time_to_quality.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
            write_image(options.output / "sheet.jpg", sheet(rows))
    print(summary(results))


if __name__ == "__main__":
    main()
