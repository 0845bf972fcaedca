"""The plan of the demo's style picture: its motifs, its colours and the flow of its strokes.

One scalar field, the stream function, decides everything. Strokes follow its level lines, so they swirl
around the discs and roll with the waves; colours are looked up by its value, so bands of colour run with the
strokes. Positions and lengths are in units of the picture's width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from brush import FloatArray

Points = npt.NDArray[np.float64]

ASPECT = 0.78  # height of the picture over its width


def _rgb(code: str) -> FloatArray:
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / 255


NIGHT, ULTRAMARINE, COBALT, CERULEAN = _rgb("0a1038"), _rgb("1722a0"), _rgb("1c4fd0"), _rgb("2a8be0")
TURQUOISE, AQUA, WHITE, NAPLES = _rgb("12b3b0"), _rgb("86dccf"), _rgb("f8f1da"), _rgb("f9dc7c")
YELLOW, ORANGE, VERMILION, CRIMSON = _rgb("ffc810"), _rgb("fb8a10"), _rgb("e8431a"), _rgb("b50f30")
ALIZARIN, VIOLET, VIRIDIAN = _rgb("560a2c"), _rgb("45208c"), _rgb("0a6a58")

# Cycles of neighbouring colours: each step is a small one, so that paints mix without turning grey.
SKY = np.stack([NIGHT, ULTRAMARINE, COBALT, CERULEAN, AQUA, WHITE, TURQUOISE, COBALT, ULTRAMARINE, VIOLET])
EARTH = np.stack([ALIZARIN, CRIMSON, VERMILION, ORANGE, YELLOW, NAPLES, ORANGE, CRIMSON, VIOLET, NIGHT])
SUN = np.stack([WHITE, YELLOW, NAPLES, ORANGE, YELLOW, VERMILION, ORANGE, CRIMSON, VIOLET, ULTRAMARINE])
MOON = np.stack([NAPLES, WHITE, AQUA, TURQUOISE, WHITE, CERULEAN, AQUA, COBALT, VIRIDIAN, NIGHT])


@dataclass(frozen=True)
class Disc:
    """A glowing disc that the flow circles around.

    Attributes:
        x: Horizontal position of the centre.
        y: Vertical position of the centre, downwards.
        radius: Where its halo ends.
        spin: Strength and sense of the circling.
        rings: Its colours from the centre to the rim.
    """

    x: float
    y: float
    radius: float
    spin: float
    rings: FloatArray


DISCS = (
    Disc(0.27, 0.27, 0.175, 1.0, SUN),
    Disc(0.735, 0.195, 0.115, -1.0, MOON),
    Disc(0.505, 0.095, 0.055, 1.0, SUN),
    Disc(0.925, 0.37, 0.065, 1.0, SUN),
    Disc(0.555, 0.375, 0.085, -1.0, MOON),
    Disc(0.055, 0.07, 0.050, -1.0, MOON),
    Disc(0.80, 0.63, 0.075, 1.0, SUN),
    Disc(0.22, 0.66, 0.060, -1.0, MOON),
)


class Scene:
    """The plan of the picture: which way strokes run and which colour they have at any point."""

    def __init__(self, rng: np.random.Generator, modes: int = 14) -> None:
        """Draw the random waves that bend the bands.

        Args:
            rng: Source of the waves.
            modes: Number of plane waves that are summed.
        """
        frequency = rng.uniform(5, 17, modes)
        angle = rng.uniform(0, 2 * np.pi, modes)
        self._waves = np.stack([frequency * np.cos(angle), frequency * np.sin(angle)])
        self._phases = rng.uniform(0, 2 * np.pi, modes)
        self._heights = 0.16 / frequency

    def stream(self, at: Points) -> Points:
        """Stream function: flow runs along its level lines."""
        x, y = at[..., 0], at[..., 1]
        roll = 0.05 * np.sin(6.5 * x + 1.0) + 0.03 * np.sin(11 * x - 5 * y)
        value = y - roll + (np.sin(at @ self._waves + self._phases) * self._heights).sum(-1)
        for disc in DISCS:
            hold = np.exp(-((self._distance(disc, at) / 0.8) ** 4))
            # Inside a disc the bands are stilled, or they would push the circles away from its centre.
            value = value * (1 - hold) + disc.y * hold
            value = value + disc.spin * 1.6 * disc.radius * np.exp(-((self._distance(disc, at) / 0.75) ** 2))
        return value

    def direction(self, at: Points) -> Points:
        """Unit vectors along the flow."""
        # Differences wide enough to round off the corners where streams part.
        right, down = 4 / 1024 * np.eye(2)
        slope_x = self.stream(at + right) - self.stream(at - right)
        slope_y = self.stream(at + down) - self.stream(at - down)
        along = np.stack([slope_y, -slope_x], -1)
        return along / (np.linalg.norm(along, axis=-1, keepdims=True) + 1e-12)

    def colour(self, at: Points, shift: Points) -> FloatArray:
        """Planned colours; `shift` moves each look-up along its cycle of colours, one unit a colour."""
        x, y = at[:, 0], at[:, 1]
        horizon = 0.50 + 0.05 * np.sin(6.5 * x + 1.0) + 0.03 * np.sin(17 * x)
        cycle = self.stream(at) * 26
        below = (y + 0.012 * shift > horizon)[:, None]
        colours = np.where(below, _cyclic(EARTH, cycle + shift), _cyclic(SKY, cycle + shift))
        for disc in DISCS:
            distance = self._distance(disc, at)
            ring = np.clip(distance * len(disc.rings) + 0.6 * shift, 0, len(disc.rings) - 1)
            colours = np.where((distance + 0.04 * shift < 0.97)[:, None], _cyclic(disc.rings, ring), colours)
        return colours.astype(np.float32)

    @staticmethod
    def _distance(disc: Disc, at: Points) -> Points:
        """Distance from a disc's centre in units of its radius."""
        x, y = at[..., 0] - disc.x, at[..., 1] - disc.y
        uneven = 1 + 0.07 * np.sin(2 * np.arctan2(y, x) + 40 * disc.x) + 0.04 * np.sin(60 * x + 45 * y)
        return np.hypot(x, y) / disc.radius * uneven


def _cyclic(colours: FloatArray, position: Points) -> FloatArray:
    """Look colours up by position; neighbours blend only near the border between them."""
    low = np.floor(position).astype(int)
    blend = np.clip((position - low - 0.35) / 0.3, 0, 1)[:, None]
    return colours[low % len(colours)] * (1 - blend) + colours[(low + 1) % len(colours)] * blend
