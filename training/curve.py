"""Draw how a training went: python training/curve.py METRICS.csv [METRICS.csv ...] --output curve.png.

Several files are drawn one after the other, as rounds of one training. Needs matplotlib (the extra ``benchmark``).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

LOSSES = ("features", "gram", "gap", "gradient")
SCORES = ("held_out_share", "held_out_share_unseen", "held_out_share_relu5_1", "held_out_content")
_SMOOTHED_OVER = 10  # number of rows; one row is a single pair


def read(paths: list[Path]) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each column.

    Steps of later files are counted on from those before; a file that goes on from a checkpoint, which its first step
    shows, takes the place of what the one before had from there on.
    """
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in (*LOSSES, *SCORES)}
    begin, following = 0, 0
    for path in paths:
        with path.open() as file:
            rows = list(csv.DictReader(file))
        steps = sorted({int(row["step"]) for row in rows})
        if steps[0] < steps[-1] - steps[-2]:  # not further from zero than two rows are from each other
            begin = following
        for name, values in found.items():
            found[name] = [(step, value) for step, value in values if step < begin + steps[0]] + [
                (begin + int(row["step"]), float(row[name])) for row in rows if row.get(name)
            ]
        following = begin + steps[-1] + 1
    return found


def smoothed(values: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Means over neighbouring rows."""
    return [
        (values[i][0], sum(v for _, v in values[max(0, i - _SMOOTHED_OVER + 1) : i + 1]) / min(i + 1, _SMOOTHED_OVER))
        for i in range(len(values))
    ]


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path("curve.png"))
    arguments = parser.parse_args()
    values = read(arguments.metrics)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for name in LOSSES:
        if values[name]:
            left.plot(*zip(*smoothed(values[name]), strict=True), label=name)
    left.set(xlabel="step", ylabel="loss, running mean", yscale="log")
    for name in SCORES:
        if values[name]:
            right.plot(*zip(*values[name], strict=True), marker="o", label=name.removeprefix("held_out_"))
    right.set(xlabel="step", ylabel="held-out pairs, over VGG-19's")
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(arguments.output, dpi=110)


if __name__ == "__main__":
    main()
