"""A loaded bristle brush: curved ribbons of streaky paint with a relief, on a canvas lit from one side.

The canvas keeps a colour and a paint height for every pixel. A stroke is a ribbon around a curve; each of its
bristles leaves a streak with a lightness, a height and a place where it runs dry. When all strokes are down,
`Canvas.develop` lights the heights, which is what makes the streaks read as thick paint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

SAMPLES_PER_PIXEL = 1.5  # along and across a stroke; below ~1.3 the outside of a tight bend shows holes
RIDGE = 0.75  # height of the paint squeezed out at a stroke's sides, in units of the bristle relief
LIGHT = (-0.55, -0.83)  # the direction (x, y) that the light comes from: upper left


@dataclass(frozen=True)
class Stroke:
    """One stroke: where the brush goes, how wide it is and the two paints that it carries.

    Attributes:
        path: The points of the centre line in pixels, as (n, 2) of (x, y).
        width: The full width in pixels.
        left: The RGB colour in [0, 1] on the left half of the brush.
        right: The RGB colour in [0, 1] on the right half of the brush.
    """

    path: FloatArray
    width: float
    left: FloatArray
    right: FloatArray

    def scaled(self, factor: float) -> Stroke:
        """The same stroke in other units of length."""
        return Stroke((self.path * factor).astype(np.float32), self.width * factor, self.left, self.right)


class Canvas:
    """Colour and paint height under a growing pile of strokes."""

    def __init__(self, width: int, height: int, ground: FloatArray, bristle: float) -> None:
        """Prime the canvas with one colour.

        Args:
            width: Width in pixels.
            height: Height in pixels.
            ground: The RGB colour in [0, 1] that shows where no stroke lands.
            bristle: The spacing of the brush's bristles in pixels.
        """
        self.colour = np.broadcast_to(ground, (height, width, 3)).astype(np.float32)
        self.relief = np.zeros((height, width), np.float32)
        self.bristle = bristle

    def paint(self, stroke: Stroke, rng: np.random.Generator) -> None:
        """Lay one stroke over everything painted so far."""
        along, across = self._sample_grid(stroke)
        x, y = _ribbon(stroke, along, across)
        streaks = _Streaks.draw(rng, max(3, round(stroke.width / self.bristle)), along, across)
        height, width = self.relief.shape
        column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
        wet = streaks.wet & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixel = (row * width + column)[wet]

        blend = (0.5 + 0.5 * np.tanh(2.5 * (across[None, :] + streaks.mix)))[..., None]
        paint = (stroke.left * (1 - blend) + stroke.right * blend) * (1 + streaks.tone[..., None])
        cover = streaks.opacity[wet]
        colour, relief = self.colour.reshape(-1, 3), self.relief.reshape(-1)
        colour[pixel] += (paint[wet] - colour[pixel]) * cover[:, None]
        relief[pixel] = 0.35 * relief[pixel] + streaks.thickness[wet]

    def develop(self, depth: float) -> FloatArray:
        """Light the relief and return the picture as RGB in [0, 1].

        Args:
            depth: How strongly slopes of the paint brighten or darken it.
        """
        down, right = np.gradient(self.relief)
        slope = -(LIGHT[0] * right + LIGHT[1] * down)
        shade = np.tanh(-slope * depth)[..., None]
        # Lit slopes go towards white, as wet oil glints; slopes in shadow have the same hue and get darker.
        lit = self.colour + np.clip(shade, 0, 1) * 0.30 * (1.05 - self.colour)
        return np.clip(lit * (1 + np.clip(shade, -1, 0) * 0.38), 0, 1).astype(np.float32)

    def _sample_grid(self, stroke: Stroke) -> tuple[FloatArray, FloatArray]:
        """Positions along [0, 1] and across [-1, 1] the stroke, dense enough to touch every pixel."""
        length = float(np.linalg.norm(np.diff(stroke.path, axis=0), axis=1).sum())
        along = np.linspace(0, 1, max(4, int(length * SAMPLES_PER_PIXEL)), dtype=np.float32)
        across = np.linspace(-1, 1, max(4, int(stroke.width * SAMPLES_PER_PIXEL)), dtype=np.float32)
        return along, across


def _ribbon(stroke: Stroke, along: FloatArray, across: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Pixel coordinates of every sample of a ribbon that swells after its start and tapers to its end."""
    knots = np.linspace(0, 1, len(stroke.path))
    x, y = (np.interp(along, knots, stroke.path[:, axis]).astype(np.float32) for axis in (0, 1))
    # Directions are interpolated between the knots: computed from the polygon they would jump at each knot, and
    # the outside of a bend would be left with a gap there.
    slopes = np.gradient(stroke.path, axis=0)
    tangent_x, tangent_y = (np.interp(along, knots, slopes[:, axis]).astype(np.float32) for axis in (0, 1))
    norm = np.hypot(tangent_x, tangent_y) + 1e-6
    swell = np.minimum(1, 0.45 + 6 * along) * np.minimum(1, 0.30 + 2.6 * (1 - along)) ** 0.8
    reach = (0.5 * stroke.width * swell)[:, None] * across[None, :]
    return x[:, None] - (tangent_y / norm)[:, None] * reach, y[:, None] + (tangent_x / norm)[:, None] * reach


@dataclass(frozen=True)
class _Streaks:
    """What the bristles of one stroke leave, sampled on its (along, across) grid.

    Attributes:
        tone: Relative change of lightness.
        mix: Shift between the two paints of the brush.
        thickness: Height of the paint.
        opacity: How much of what lies underneath is hidden.
        wet: Where there is any paint.
    """

    tone: FloatArray
    mix: FloatArray
    thickness: FloatArray
    opacity: FloatArray
    wet: npt.NDArray[np.bool_]

    @classmethod
    def draw(cls, rng: np.random.Generator, bristles: int, along: FloatArray, across: FloatArray) -> _Streaks:
        """Give every bristle its own load of paint."""
        column = (across + 1) * 0.5 * (bristles - 1)

        def per_bristle(knots: int) -> FloatArray:
            return _interpolate(rng.standard_normal((knots, bristles)).astype(np.float32), along, column)

        streak, load, drift = per_bristle(4), per_bristle(6), per_bristle(3)
        dry_at = 0.90 + 0.11 * per_bristle(1)  # bristles lift off one by one towards the end
        touch_at = 0.03 + 0.03 * per_bristle(1)
        ragged = np.abs(across)[None, :] < 0.92 + 0.08 * load
        wet = (along[:, None] < dry_at) & (along[:, None] > touch_at) & ragged
        ridge = RIDGE * np.exp(-(((np.abs(across) - 0.86) / 0.12) ** 2))[None, :]
        body = 1.1 - 0.5 * along[:, None] + 0.30 * streak + 0.12 * load
        return cls(
            tone=0.11 * streak + 0.05 * load,
            mix=0.45 * drift + 0.25 * streak,
            thickness=body + ridge,
            opacity=np.clip(1.0 - 0.25 * along[:, None] + 0.12 * load, 0.55, 1.0),
            wet=wet,
        )


def _interpolate(table: FloatArray, along: FloatArray, column: FloatArray) -> FloatArray:
    """Sample a (knots, bristles) table: linear along the stroke, linear from bristle to bristle."""
    knots, bristles = table.shape
    row = along * (knots - 1)
    top = np.minimum(row.astype(np.int32), max(knots - 2, 0))
    low = np.minimum(top + 1, knots - 1)
    rows = table[top] + (table[low] - table[top]) * (row - top)[:, None]
    left = np.minimum(column.astype(np.int32), bristles - 2)
    return rows[:, left] + (rows[:, left + 1] - rows[:, left]) * (column - left)[None, :]
