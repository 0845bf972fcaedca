"""Colours that a file names by code points, or by a gamma and chromaticities, as profiles for littleCMS."""

import functools
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import imagecodecs
import numpy as np

from nst_lightning.images import transfer

Point = tuple[float, float]

_UNSPECIFIED = 2
_BT709 = 1
_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
_SRGB_PRIMARIES = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_SMPTE_C = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
# Red, green and blue, and white, by ColourPrimaries (Rec. ITU-T H.273, table 2).
_PRIMARIES: dict[int, tuple[Sequence[Point], Point]] = {
    _BT709: (_SRGB_PRIMARIES, _D65),
    4: (((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), _C),
    5: (((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), _D65),
    6: (_SMPTE_C, _D65),
    7: (_SMPTE_C, _D65),
    8: (((0.681, 0.319), (0.243, 0.692), (0.145, 0.049)), _C),
    9: (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), _D65),
    11: (_P3, _DCI),
    12: (_P3, _D65),
    22: (((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)), _D65),
}
_POINTS = 4096  # entries of 16 bits in the table of a curve: as fine as 12 bits of samples
_SRGB_GAMMA, _GAMMA_ERROR, _CHROMA_ERROR = 1 / 2.2, 0.005, 0.005


class CodePoints(NamedTuple):
    """ColourPrimaries and TransferCharacteristics of Rec. ITU-T H.273, as PNG, AVIF and HEIF have them (CICP)."""

    primaries: int
    transfer: int

    @property
    def hdr(self) -> bool:
        """Whether the transfer is PQ or HLG, for which an ICC profile has no curve."""
        return self.transfer in (transfer.PQ, transfer.HLG)

    @property
    def known(self) -> bool:
        """Whether the numbers say what they should mean; those left unspecified mean sRGB."""
        return (self.primaries in _PRIMARIES or self.primaries == _UNSPECIFIED) and (
            self.hdr or self.transfer in transfer.CURVES or self.transfer == _UNSPECIFIED
        )


LINEAR = CodePoints(_BT709, 8)


@functools.lru_cache(maxsize=8)
def profile_of(points: CodePoints) -> bytes | None:
    """An ICC profile for code points that are known and not of HDR; None for sRGB, which needs none."""
    primaries = _BT709 if points.primaries == _UNSPECIFIED else points.primaries
    curve = transfer.SRGB if points.transfer == _UNSPECIFIED else points.transfer
    if (primaries, curve) == (_BT709, transfer.SRGB):
        return None
    corners, white = _PRIMARIES[primaries]
    light = transfer.CURVES[curve](np.linspace(0, 1, _POINTS))
    table = np.rint(light * 65535).astype(np.uint16)
    return _matrix_profile(corners, white, transferfunction=table)


@functools.lru_cache(maxsize=8)
def linear_profile(primaries: int = _BT709) -> bytes:
    """An ICC profile of linear light with one of H.273's primaries."""
    corners, white = _PRIMARIES[_BT709 if primaries == _UNSPECIFIED else primaries]
    return _matrix_profile(corners, white, gamma=1.0)


@functools.cache
def adobe_rgb_profile() -> bytes:
    """The ICC profile that cameras mean by Adobe RGB."""
    return bytes(imagecodecs.cms_profile("adobergb"))


def profile_of_gamma(gamma: float, points: Sequence[Point] | None) -> bytes | None:
    """An ICC profile for what PNG's gAMA (1 / 2.2, say) and cHRM (white, red, green, blue) say, as browsers read them.

    None for what is sRGB but for its toe (most programs that write these chunks mean sRGB), and for numbers that make
    no colour space. Without points those of sRGB are meant.
    """
    white, *corners = points or (_D65, *_SRGB_PRIMARIES)
    plain = (_D65, *_SRGB_PRIMARIES)
    moved = float(np.abs(np.array((white, *corners)) - np.array(plain)).max())
    if abs(gamma - _SRGB_GAMMA) < _GAMMA_ERROR and moved < _CHROMA_ERROR:
        return None
    # Three points on a line, or a white without light, make no colour space.
    (rx, ry), (gx, gy), (bx, by) = corners
    if gamma <= 0 or white[1] <= 0 or abs((gx - rx) * (by - ry) - (bx - rx) * (gy - ry)) < 1e-4:
        return None
    try:
        return _matrix_profile(corners, white, gamma=1 / gamma)
    except (RuntimeError, ValueError):  # littleCMS's word for numbers that are no colours
        return None


def icc_tags(profile: bytes) -> dict[bytes, bytes]:
    """Tags of a profile (ICC.1:2022, 7.3), as far as there are any in it."""
    count = int.from_bytes(profile[128:132], "big")
    places = range(132, min(132 + 12 * count, len(profile) - 11), 12)
    entries = (struct.unpack_from(">4sII", profile, place) for place in places)
    return {name: profile[offset : offset + size] for name, offset, size in entries}


def hdr_code_points(icc: bytes) -> CodePoints | None:
    """Code points in a profile's tag ``cicp`` (ICC.1:2022, 9.2.17) if of HDR, which its tables only approach."""
    tag = icc_tags(icc).get(b"cicp", b"")
    if len(tag) < 12 or tag[:4] != b"cicp":
        return None
    points = CodePoints(tag[8], tag[9])
    return points if points.hdr and points.known else None


def _matrix_profile(corners: Sequence[Point], white: Point, **curve: Any) -> bytes:
    flat = [value for corner in corners for value in (*corner, 1.0)]
    return bytes(imagecodecs.cms_profile("rgb", whitepoint=(*white, 1.0), primaries=flat, **curve))
