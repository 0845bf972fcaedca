"""Results as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nst_lightning.cli.benchmark.table import facts
from nst_lightning.files.atomic import replacing


def draw(benchmarks: list[dict[str, Any]], path: Path) -> bool:
    """Plot seconds per evaluation against size, and memory where tiles were measured, into a PNG file.

    Returns:
        Whether there was anything to plot.
    """
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to import

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.ticker import LogLocator  # noqa: PLC0415

    panels = [panel for panel in (_evaluation_lines(benchmarks), *_tiling_lines(benchmarks)) if panel[1]]
    if not panels:
        return False
    figure, all_axes = plt.subplots(1, len(panels), figsize=(7 * len(panels), 4.5), layout="constrained", squeeze=False)
    for axes, (label, lines) in zip(all_axes[0], panels, strict=True):
        for name, points in lines.items():
            sizes, values, below, above = zip(*sorted(points), strict=True)
            style = "--" if name.startswith("baseline") or name.endswith("whole") else "-"
            axes.errorbar(sizes, values, [below, above], fmt=style, marker="o", capsize=3, label=name)
        axes.set(xscale="log", yscale="log", xlabel="long side in pixels", ylabel=label)
        ticks = sorted({point[0] for points in lines.values() for point in points})
        axes.set_xticks(ticks, [str(size) for size in ticks])
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as file:
        figure.savefig(file, dpi=120, format="png")
    plt.close(figure)
    return True


_Lines = dict[str, list[tuple[int, float, float, float]]]  # size, value, how far it went below and above


def _evaluation_lines(benchmarks: list[dict[str, Any]]) -> tuple[str, _Lines]:
    """Seconds by size for each program, precision and device."""
    lines: _Lines = {}
    for b in benchmarks:
        if b["suite"] == "evaluation" and b["optimizer"] in {"lbfgs", "torch lbfgs"}:
            if b["program"] == "nst_lightning" and b["optimizer"] != "lbfgs":
                continue
            known = facts(b, "program", "extractor", "accelerator", "precision")
            point = (b["size"], b["median"], abs(b["min"] - b["median"]), abs(b["max"] - b["median"]))
            lines.setdefault(" ".join(fact for fact in known if fact not in {None, "vgg19"}), []).append(point)
    return "seconds per evaluation", lines


def _tiling_lines(benchmarks: list[dict[str, Any]]) -> list[tuple[str, _Lines]]:
    """Memory beyond the buffers of full size, and seconds, whole and in tiles."""
    memory: _Lines = {}
    seconds: _Lines = {}
    for b in benchmarks:
        if b["suite"] == "tiling":
            name = f"{b['extractor']}, " + (f"tiles of {b['tile']} px" if b["tile"] else "whole")
            beyond = (b["bytes"] - b["buffers"]) / 2**30
            memory.setdefault(name, []).append((b["size"], max(beyond, 0.01), 0, 0))
            seconds.setdefault(name, []).append((b["size"], b["seconds"], 0, 0))
    return [("GiB beyond buffers of full size", memory), ("seconds per evaluation", seconds)]
