"""From the numbers of a picture to light: the transfer functions of Rec. ITU-T H.273, and HDR's of BT.2100."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PQ, HLG = 16, 18  # TransferCharacteristics of H.273, table 3
SRGB = 13
WHITE_OF_HDR = 203.0  # cd/m2 of a white sheet in an HDR picture (Report ITU-R BT.2408, table 1)
_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2  # cd/m2 of the display that BT.2100 counts with, and its system gamma
_HLG_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # weights of BT.2020's primaries in luminance


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
