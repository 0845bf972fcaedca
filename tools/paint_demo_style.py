"""Paint the demo's style picture: glowing discs over rolling bands, in long strokes along a swirling flow.

    python tools/paint_demo_style.py OUTPUT [--size 1024] [--seed 7]

`demo_scene` plans where strokes run and which colours they have; `brush` lays them. This program decides how
many strokes of which size there are: broad ones first and fine ones last, painted at twice the picture's size
and then reduced.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from brush import Canvas, FloatArray, Stroke
from demo_scene import ASPECT, NIGHT, Points, Scene
from PIL import Image

SUPERSAMPLING = 2
BRISTLE = 1.5 / 1024  # spacing of the bristles; lengths are in units of the picture's width
RELIEF = 1.3  # how strongly the light picks out the thickness of the paint
SLENDEREST = 7 / 1024  # width added to what a stroke's bend allows


@dataclass(frozen=True)
class Pass:
    """One round of strokes of about the same size.

    Attributes:
        width: Width of the strokes.
        length: Length of the strokes.
        coverage: Area of all strokes over the area of the picture.
        contrast: How far colours stray from the plan, so that fine strokes stand out from what they cover.
        sharpest: Strokes end where they would bend tighter than this radius.
    """

    width: float
    length: float
    coverage: float
    contrast: float
    sharpest: float = 14 / 1024


PASSES = (
    Pass(44 / 1024, 300 / 1024, coverage=3.0, contrast=0.5),
    Pass(28 / 1024, 190 / 1024, coverage=2.2, contrast=0.9),
    Pass(17 / 1024, 120 / 1024, coverage=1.2, contrast=1.1),
    Pass(9 / 1024, 80 / 1024, coverage=0.45, contrast=1.4),
    Pass(5 / 1024, 46 / 1024, coverage=0.15, contrast=1.7),
)
# Short dabs for the spots that the broad strokes leave bare, above all the centres of the discs.
MENDING = Pass(14 / 1024, 34 / 1024, coverage=0, contrast=0.3, sharpest=0)
MENDING_ROUNDS = 8


def _trace(scene: Scene, middles: Points, length: Points, wobble: Points, steps: int = 12) -> Points:
    """Follow the flow both ways from each middle, as (n, 2 * steps + 1, 2).

    `wobble` turns each stroke a little off the flow, as a hand would.
    """
    cosine, sine = np.cos(wobble), np.sin(wobble)

    def way(at: Points) -> Points:
        flow = scene.direction(at)
        return np.stack([flow[:, 0] * cosine - flow[:, 1] * sine, flow[:, 0] * sine + flow[:, 1] * cosine], -1)

    def follow(stride: Points) -> list[Points]:
        path = [middles]
        for _ in range(steps):
            # The midpoint rule: with plain Euler steps circles would open into outward spirals.
            path.append(path[-1] + stride * way(path[-1] + 0.5 * stride * way(path[-1])))
        return path

    stride = (length / (2 * steps))[:, None]
    return np.stack(follow(-stride)[:0:-1] + follow(stride), 1)


def _bends(path: Points) -> Points:
    """Radius of curvature at the inner points of a path."""
    steps = np.diff(path, axis=0)
    cross = steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]
    turn = np.abs(np.arctan2(cross, (steps[:-1] * steps[1:]).sum(-1)))
    radius: Points = np.linalg.norm(steps[1:], axis=-1) / (turn + 1e-9)
    return radius


def _without_hooks(path: Points, sharpest: float) -> Points:
    """Cut a path off on either side of its middle where streams part and it would turn a sharp corner."""
    middle = len(path) // 2
    sharp = np.flatnonzero(_bends(path) < sharpest) + 1
    first = max((i for i in sharp if i < middle - 1), default=0)
    last = min((i for i in sharp if i > middle + 1), default=len(path) - 1)
    return path[first : last + 1]


def _vary(colours: FloatArray, amount: float, rng: np.random.Generator) -> FloatArray:
    """Change the lightness of each colour as a whole and each channel a little."""
    light = 1 + amount * 0.10 * rng.standard_normal((len(colours), 1))
    tint = 1 + 0.05 * rng.standard_normal(colours.shape)
    return np.clip(colours * light * tint, 0, 1).astype(np.float32)


def _scatter(plan: Pass, rng: np.random.Generator) -> Points:
    """Middles of the strokes of one pass, over the picture and a margin around it, in random order."""
    margin = plan.length / 2
    count = int(plan.coverage * (1 + 2 * margin) * (ASPECT + 2 * margin) / (plan.width * plan.length))
    return rng.uniform([-margin, -margin], [1 + margin, ASPECT + margin], (count, 2))


def _bare_spots(canvas: Canvas, rng: np.random.Generator, fraction: float = 1 / 120) -> Points:
    """A sample of the places that no stroke has reached yet: `fraction` of them in a canvas of 1024 pixels."""
    width = canvas.relief.shape[1]
    row, column = np.nonzero(canvas.relief == 0)
    chosen = rng.permutation(len(row))[: int(len(row) * fraction * (1024 / width) ** 2)]
    return np.stack([column[chosen], row[chosen]], -1) / width


def _strokes(scene: Scene, plan: Pass, middles: Points, rng: np.random.Generator) -> Iterator[Stroke]:
    """Strokes of one pass through the given middles, in units of the picture's width."""
    count = len(middles)
    lengths = plan.length * rng.uniform(0.55, 1.25, count)
    widths = plan.width * rng.uniform(0.65, 1.25, count)
    paths = _trace(scene, middles, lengths, rng.normal(0, 0.10, count))
    shift = plan.contrast * rng.standard_normal(count) * 0.6
    left = _vary(scene.colour(middles, shift), plan.contrast, rng)
    right = _vary(scene.colour(middles, shift + rng.normal(0, 0.7, count)), plan.contrast, rng)
    for whole, width, one, other in zip(paths, widths, left, right, strict=True):
        path = _without_hooks(whole, plan.sharpest)
        # A brush wider than its bend would fold over itself, so tight curves get slender strokes.
        yield Stroke(path.astype(np.float32), min(width, 1.1 * _bends(path).min() + SLENDEREST), one, other)


def paint(size: int, seed: int) -> Image.Image:
    """Paint the picture.

    Args:
        size: Width of the picture in pixels.
        seed: Seed of everything random; the same size and seed give the same picture.

    Returns:
        The picture, in RGB.
    """
    rng = np.random.default_rng(seed)
    scene = Scene(rng)
    width, height = size * SUPERSAMPLING, round(size * ASPECT) * SUPERSAMPLING
    canvas = Canvas(width, height, NIGHT, bristle=BRISTLE * width)

    def lay(plan: Pass, middles: Points) -> None:
        for stroke in _strokes(scene, plan, middles, rng):
            canvas.paint(stroke.scaled(width), rng)

    broad, fine = PASSES[:2], PASSES[2:]
    for plan in broad:
        lay(plan, _scatter(plan, rng))
    for _ in range(MENDING_ROUNDS):
        lay(MENDING, _bare_spots(canvas, rng))
    for plan in fine:
        lay(plan, _scatter(plan, rng))
    picture = Image.fromarray(np.uint8(np.rint(canvas.develop(RELIEF) * 255)))
    return picture.resize((size, round(size * ASPECT)), Image.Resampling.LANCZOS)


def main() -> None:
    """Read the command line, paint and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="picture to write, such as style.jpg")
    parser.add_argument("--size", type=int, default=1024, help="width in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the strokes (default: %(default)s)")
    arguments = parser.parse_args()
    picture = paint(arguments.size, arguments.seed)
    # Full-resolution colour: strokes differ in hue as much as in lightness.
    options: dict[str, Any] = (
        {"quality": 93, "subsampling": 0} if arguments.output.suffix.lower() in {".jpg", ".jpeg"} else {}
    )
    picture.save(arguments.output, **options)
    print(f"{arguments.output}: {picture.width} x {picture.height}")


if __name__ == "__main__":
    main()
