"""Colours that a file names by code points (Rec. ITU-T H.273), or by a gamma and chromaticities: light and profiles."""

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Point = tuple[float, float]

PQ, HLG = 16, 18  # TransferCharacteristics of H.273, table 3
SRGB = 13
WHITE_OF_HDR = 203.0  # cd/m2 of a white sheet in an HDR picture (Report ITU-R BT.2408, table 1)
_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2  # cd/m2 of the display that BT.2100 counts with, and its system gamma
_HLG_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # weights of BT.2020's primaries in luminance
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


def _bt709(code: Array) -> Array:
    """The inverse of the camera's curve, as littleCMS, Firefox and picture editors use it."""
    a, b = 1.09929682680944, 0.018053968510807
    return np.asarray(np.where(code < 4.5 * b, code / 4.5, ((code + a - 1) / a) ** (1 / 0.45)))


def srgb_light(code: Array) -> Array:
    """The curve of sRGB, from values of at least 0 to light."""
    return np.asarray(np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4))


def _power(exponent: float) -> Callable[[Array], Array]:
    return lambda code: np.asarray(code**exponent)


CURVES: dict[int, Callable[[Array], Array]] = {
    1: _bt709,
    4: _power(2.2),  # BT.470 System M
    5: _power(2.8),  # BT.470 System B, G
    6: _bt709,  # BT.601
    7: lambda code: np.asarray(np.where(code < 0.0912, code / 4.0, ((code + 0.1115) / 1.1115) ** (1 / 0.45))),
    8: _power(1.0),
    11: _bt709,  # xvYCC, within [0, 1]
    12: _bt709,  # BT.1361, within [0, 1]
    SRGB: srgb_light,
    14: _bt709,  # BT.2020 with 10 bits
    15: _bt709,  # BT.2020 with 12 bits
    17: lambda code: np.asarray(np.minimum(code**2.6 * (52.37 / 48), 1)),  # SMPTE ST 428-1: digital cinema
}
"""By TransferCharacteristics: ``[0, 1]`` as stored to light in ``[0, 1]``; those of HDR are not here."""


def hdr_light(code: Array, transfer: int) -> Array:
    """Light of an HDR picture, PQ or HLG, on the display that it was made for, by Rec. ITU-R BT.2100.

    Takes ``(H, W, 3)`` float32 in ``[0, 1]``, with the primaries of BT.2020 in the case of HLG; returns the same shape,
    linear, where 1 is white (``WHITE_OF_HDR``) and highlights are above.
    """
    if transfer == PQ:  # BT.2100, table 4: the EOTF
        m1, m2 = np.float32(2610 / 16384), np.float32(2523 / 4096 * 128)
        c1, c2, c3 = (np.float32(value) for value in (3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32))
        root = code ** (1 / m2)
        light: Array = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
        light *= np.float32(10000 / WHITE_OF_HDR)
        return light
    # BT.2100, table 5: the inverse OETF to the light of the scene, and the OOTF to that of the display
    a, b, c = (np.float32(value) for value in (0.17883277, 0.28466892, 0.55991073))
    scene = np.where(code <= 0.5, code * code / 3, (np.exp((code - c) / a) + b) / 12)
    luminance = (scene @ _HLG_LUMINANCE)[..., None]
    scale = np.float32(_HLG_PEAK / WHITE_OF_HDR)
    return np.asarray(scale * np.maximum(luminance, 1e-12) ** np.float32(_HLG_GAMMA - 1) * scene, dtype=np.float32)


class CodePoints(NamedTuple):
    """ColourPrimaries and TransferCharacteristics of Rec. ITU-T H.273, as PNG, AVIF and HEIF have them (CICP)."""

    primaries: int
    transfer: int

    @property
    def hdr(self) -> bool:
        """Whether the transfer is PQ or HLG, for which an ICC profile has no curve."""
        return self.transfer in (PQ, HLG)

    @property
    def known(self) -> bool:
        """Whether the numbers say what they should mean; those left unspecified mean sRGB."""
        return (self.primaries in _PRIMARIES or self.primaries == _UNSPECIFIED) and (
            self.hdr or self.transfer in CURVES or self.transfer == _UNSPECIFIED
        )


LINEAR = CodePoints(_BT709, 8)


@functools.lru_cache(maxsize=8)
def profile_of(points: CodePoints) -> bytes | None:
    """An ICC profile for code points that are known and not of HDR; None for sRGB, which needs none."""
    primaries = _BT709 if points.primaries == _UNSPECIFIED else points.primaries
    curve = SRGB if points.transfer == _UNSPECIFIED else points.transfer
    if (primaries, curve) == (_BT709, SRGB):
        return None
    corners, white = _PRIMARIES[primaries]
    light = CURVES[curve](np.linspace(0, 1, _POINTS))
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
