"""From the numbers in a file to sRGB: ICC profiles, greyscale, CMYK and L*a*b*, and alpha over white."""

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import ImageCms

from nst_lightning.errors import UserNotice

Array = NDArray[Any]
Space = Literal["GRAY", "RGB", "CMYK", "LAB"]

_CHANNELS: dict[Space, int] = {"GRAY": 1, "RGB": 3, "CMYK": 4, "LAB": 3}
_ICC_SPACE: dict[bytes, Space] = {b"GRAY": "GRAY", b"RGB ": "RGB", b"CMYK": "CMYK", b"Lab ": "LAB"}


@dataclass(frozen=True)
class Raster:
    """Samples as a file holds them, upright, not yet colour managed.

    Attributes:
        values: ``(H, W, C)`` uint8, uint16 or float32; integers use their whole range, floats ``[0, 1]``.
            CMYK is ink (0 is none); L*a*b* is uint8 with a* and b* offset by 128.
        space: Colour space of ``values``; says what C is.
        alpha: ``(H, W)`` float32 in ``[0, 1]``, or None. Colours are not multiplied by it.
        icc: The embedded profile, or None.
    """

    values: Array
    space: Space
    alpha: Array | None = None
    icc: bytes | None = None


@functools.cache
def srgb_profile() -> bytes:
    """The sRGB ICC profile that every written picture carries; always the same bytes.

    littleCMS stamps the time of creation into bytes 24 to 35 of the header (ICC.1:2022, 7.2.8); a fixed
    date keeps equal pictures equal files.
    """
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = b"".join(n.to_bytes(2, "big") for n in (2020, 1, 1, 0, 0, 0))
    return bytes(profile)


@functools.cache
def _lab_profile() -> bytes:
    return bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())


def to_unit(values: Array) -> Array:
    """uint8 and uint16 scaled to ``[0, 1]``, floats clipped to it; float32, same shape."""
    if values.dtype.kind == "f":
        return np.asarray(np.clip(values, 0.0, 1.0), dtype=np.float32)
    unit: Array = values.astype(np.float32)
    unit /= np.iinfo(values.dtype).max
    return unit


def to_srgb(raster: Raster, path: Path) -> Array:
    """Convert to sRGB, through the embedded profile where there is a usable one.

    The rendering intent is relative colorimetric with black point compensation, the usual choice for
    pictures between display spaces: colours inside both gamuts stay what they are.

    Args:
        raster: The picture as the file holds it.
        path: The file, for the warning.

    Returns:
        ``(H, W, 3)`` float32 in ``[0, 1]``; alpha is not applied.

    Warns:
        UserWarning: The profile is damaged or made for another colour space; it is left aside.
    """
    if raster.icc is not None:
        try:
            return _through_profile(raster.values, raster.space, raster.icc)
        except (RuntimeError, TypeError, ValueError) as error:  # imagecodecs' CmsError is a RuntimeError
            warnings.warn(
                f"the colour profile in '{path}' cannot be used ({error}); its pixels are taken as sRGB",
                UserNotice,
                stacklevel=3,
            )
    if raster.space == "LAB":
        return to_unit(_transform(raster.values, "LAB", _lab_profile()))
    return unmanaged(raster)


def unmanaged(raster: Raster) -> Array:
    """The samples themselves as RGB, whatever they mean: what is no colour, such as a mask, keeps its values.

    Returns:
        ``(H, W, 3)`` float32 in ``[0, 1]``; of L*a*b* the lightness in each channel. Alpha is not applied.
    """
    unit = to_unit(raster.values)
    if raster.space in ("GRAY", "LAB"):
        return np.repeat(unit[..., :1], 3, axis=2)
    if raster.space == "CMYK":
        # What Pillow and browsers do without a profile: each ink filters the light the others leave.
        return (1.0 - unit[..., :3]) * (1.0 - unit[..., 3:])
    return unit


def _through_profile(values: Array, space: Space, icc: bytes) -> Array:
    made_for = _ICC_SPACE.get(icc[16:20])  # ICC.1:2022, 7.2.6: the colour space of the profile's device side
    if made_for == "RGB" and space == "GRAY":
        values, space = np.repeat(values, 3, axis=2), "RGB"
    if made_for != space:
        raise ValueError(f"it is for {icc[16:20].decode('latin-1').strip()!r} and the picture is {space}")
    if space == "RGB" and _is_srgb(icc):
        return to_unit(values)
    return to_unit(_transform(values, space, icc))


@functools.lru_cache(maxsize=8)
def _is_srgb(icc: bytes) -> bool:
    """Whether the profile leaves a lattice of colours where it is, to half a step of 8 bits.

    Most profiles in files are sRGB up to rounding in their tables; converting through them would cost
    accuracy, and several times the time that decoding takes.
    """
    steps = np.linspace(0, 65535, 9).astype(np.uint16)
    lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    moved = to_unit(_transform(lattice, "RGB", icc)) - to_unit(lattice)
    return bool(np.abs(moved).max() < 0.5 / 255)


def _transform(values: Array, space: Space, icc: bytes) -> Array:
    """From a profile to sRGB with littleCMS: ``(H, W, C)`` to ``(H, W, 3)`` uint16, or float32 if given."""
    if values.dtype.kind == "f":
        values = to_unit(values)
        if space == "CMYK":  # littleCMS counts floating-point ink in per cent
            values = (values * 65535 + 0.5).astype(np.uint16)
    result = imagecodecs.cms_transform(
        # Greyscale goes without its axis of one: littleCMS would take that for the width.
        np.ascontiguousarray(values[..., 0] if space == "GRAY" else values),
        icc,
        srgb_profile(),
        colorspace=space.lower(),
        outcolorspace="rgb",
        outdtype="float32" if values.dtype.kind == "f" else "uint16",
        intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
        # Its shortcut for 16 bits, a table of 33 points a side, is up to 8 % off with matrix profiles.
        flags=imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION | imagecodecs.CMS.FLAGS.NOOPTIMIZE,
    )
    return np.asarray(result).reshape(*values.shape[:2], 3)


def split_alpha(values: Array, space: Space) -> tuple[Array, Array | None]:
    """Part ``(H, W, C)`` into its colours and, where there is one channel more, its alpha.

    Returns:
        Colours ``(H, W, C)`` and alpha ``(H, W)`` float32 in ``[0, 1]`` or None.
    """
    colours = _CHANNELS[space]
    if values.shape[2] == colours:
        return values, None
    return values[..., :colours], to_unit(values[..., colours])


def over_white(rgb: Array, alpha: Array) -> Array:
    """Composite on white in sRGB values, as browsers do: ``(H, W, 3)`` and ``(H, W)`` to ``(H, W, 3)``."""
    opacity = alpha[..., None]
    return np.asarray(rgb * opacity + (1.0 - opacity))


def off_white(rgb: Array, alpha: Array) -> Array:
    """Invert ``over_white``: the colours that give ``rgb`` when shown with ``alpha`` over white.

    Where a colour is darker than its alpha can show, the nearest that it can is taken; where alpha is 0
    any colour would do and ``rgb`` stays.
    """
    opacity = alpha[..., None]
    inverse = (rgb - (1.0 - opacity)) / np.where(opacity > 0, opacity, 1.0)
    return np.where(opacity > 0, np.clip(inverse, 0.0, 1.0), rgb)
