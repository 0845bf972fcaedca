"""From the numbers in a file to sRGB: ICC profiles, greyscale, CMYK and L*a*b*, and alpha over white."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import ImageCms

from nst_lightning.errors import notice
from nst_lightning.images import codepoints
from nst_lightning.images.codepoints import LINEAR, CodePoints, hdr_code_points, linear_profile, profile_of, srgb_light
from nst_lightning.images.opening import NotFiniteError

Array = NDArray[Any]
Space = Literal["GRAY", "RGB", "CMYK", "LAB"]

CHANNELS: dict[Space, int] = {"GRAY": 1, "RGB": 3, "CMYK": 4, "LAB": 3}
_ICC_SPACE: dict[bytes, Space] = {b"GRAY": "GRAY", b"RGB ": "RGB", b"CMYK": "CMYK", b"Lab ": "LAB"}


@dataclass(frozen=True)
class Raster:
    """Samples as a file holds them, upright, not yet colour managed."""

    # ``(H, W, C)`` uint8, uint16 or float32; integers use their whole range, floats ``[0, 1]``. CMYK is ink (0 is
    # none); L*a*b* is as in profiles of ICC version 4: a* and b* offset by 128.
    values: Array
    space: Space  # colour space of ``values``; says what C is
    alpha: Array | None = None  # ``(H, W)`` float32 in ``[0, 1]``, or None. Colours are not multiplied by it
    icc: bytes | None = None  # the embedded profile, or one for what else the file says; None for sRGB
    points: CodePoints | None = None  # code points of the colours where there is no profile, or None
    notice: str = ""  # what has been supposed of the colours, to be said when they are used; empty for nothing


@functools.cache
def srgb_profile() -> bytes:
    """The sRGB ICC profile that every written picture carries; always the same bytes.

    littleCMS stamps the time of creation into bytes 24 to 35 of the header (ICC.1:2022, 7.2.8); a fixed
    date keeps equal pictures equal files.
    """
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = b"".join(n.to_bytes(2, "big") for n in (2020, 1, 1, 0, 0, 0))
    return bytes(profile)


def extended_linear(rgb: Array) -> Array:
    """Take off the curve of sRGB, from values of any shape; below 0 it is mirrored (as in IEC 61966-2-2, scRGB).

    So values beyond ``[0, 1]`` mean the colours that sRGB does not hold.
    """
    return np.copysign(srgb_light(np.abs(rgb)), rgb).astype(np.float32)


def extended_encoded(linear: Array) -> Array:
    """Invert ``extended_linear``."""
    size = np.abs(linear)
    encoded = np.where(size <= 0.0031308, size * 12.92, 1.055 * size ** (1 / 2.4) - 0.055)
    return np.copysign(encoded, linear).astype(np.float32)


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


def to_srgb(raster: Raster, path: Path, *, extended: bool = False) -> Array:
    """Convert to sRGB, through the embedded profile where there is a usable one, else by the code points.

    The rendering intent is relative colorimetric with black point compensation, the usual choice for
    pictures between display spaces: colours inside both gamuts stay what they are. In an HDR picture
    203 cd/m2 become white (Report ITU-R BT.2408), and highlights above are clipped to it.

    Returns:
        ``(H, W, 3)`` float32 in ``[0, 1]``; if `extended`, colours of an RGB profile that sRGB does not hold are values
        beyond. Alpha is not applied.

    Warns:
        UserWarning: The profile is damaged or made for another colour space; it is left aside. Or something
            had to be supposed of the colours.
    """
    say = functools.partial(notice, stacklevel=3)
    if raster.notice:
        say(f"'{path}' {raster.notice}")
    points = raster.points if raster.icc is None else hdr_code_points(raster.icc)
    if points is not None and points.hdr and points.known and raster.space in ("GRAY", "RGB"):
        curve = "PQ" if points.transfer == codepoints.PQ else "HLG"
        white = f"{codepoints.WHITE_OF_HDR:.0f} cd/m2"
        say(f"'{path}' is an HDR picture ({curve}): its white of {white} becomes white, and so does what is brighter")
        return _from_hdr(raster, points)
    icc = raster.icc
    if icc is None and points is not None:
        if points.known and not points.hdr:
            icc = profile_of(points)
        else:
            say(
                f"the colours of '{path}' have code points (CICP {points.primaries}/{points.transfer}) that are not "
                "known here; its pixels are taken as sRGB"
            )
    if icc is not None:
        try:
            return _through_profile(raster.values, raster.space, icc, extended)
        except (RuntimeError, TypeError, ValueError) as error:  # imagecodecs' CmsError is a RuntimeError
            say(f"the colour profile in '{path}' cannot be used ({error}); its pixels are taken as sRGB")
    if raster.space == "LAB":
        return to_unit(transform(raster.values, "LAB", _lab_profile()))
    return unmanaged(raster)


def profile_of_raster(raster: Raster) -> bytes | None:
    """The profile that says what the samples mean; None for sRGB, and for HDR, which none describes well."""
    if raster.icc is not None:
        return None if hdr_code_points(raster.icc) else raster.icc
    points = raster.points
    return profile_of(points) if points is not None and points.known and not points.hdr else None


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


def _from_hdr(raster: Raster, points: CodePoints) -> Array:
    """Light of the display over that of white, clipped, to sRGB."""
    light = codepoints.hdr_light(unmanaged(raster), points.transfer)
    in_srgb = transform(light, "RGB", linear_profile(points.primaries), linear_profile())  # not clipped: see there
    return transform(to_unit(in_srgb), "RGB", linear_profile())


def _through_profile(values: Array, space: Space, icc: bytes, extended: bool = False) -> Array:
    made_for = _ICC_SPACE.get(icc[16:20])  # ICC.1:2022, 7.2.6: the colour space of the profile's device side
    if made_for == "RGB" and space == "GRAY":
        values, space = np.repeat(values, 3, axis=2), "RGB"
    if made_for != space:
        raise ValueError(f"it is for {icc[16:20].decode('latin-1').strip()!r} and the picture is {space}")
    if space == "RGB" and _is_srgb(icc):
        return to_unit(values)
    if extended and space == "RGB":
        return extended_encoded(transform(to_unit(values), space, icc, linear_profile()))
    return to_unit(transform(to_unit(values) if values.dtype.kind == "f" else values, space, icc))


@functools.lru_cache(maxsize=8)
def _is_srgb(icc: bytes) -> bool:
    """Whether the profile leaves a lattice of colours where it is, to half a step of 8 bits.

    Most profiles in files are sRGB up to rounding in their tables; converting through them would cost
    accuracy, and several times as long as decoding.
    """
    steps = np.linspace(0, 65535, 9).astype(np.uint16)
    lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    moved = to_unit(transform(lattice, "RGB", icc)) - to_unit(lattice)
    return bool(np.abs(moved).max() < 0.5 / 255)


def transform(values: Array, space: Space, icc: bytes, target: bytes | None = None) -> Array:
    """From a profile of ``(H, W, C)`` to sRGB, or to another RGB profile, with littleCMS.

    Returns:
        ``(H, W, 3)`` uint16; float32 if that is given, which between linear profiles may leave ``[0, 1]``.
    """
    if values.dtype.kind == "f" and space == "CMYK":  # littleCMS counts floating-point ink in per cent
        values = (to_unit(values) * 65535 + 0.5).astype(np.uint16)
    result = imagecodecs.cms_transform(
        # Greyscale is passed without its axis of one: littleCMS would read that as the width.
        np.ascontiguousarray(values[..., 0] if space == "GRAY" else values),
        icc,
        srgb_profile() if target is None else target,
        colorspace=space.lower(),
        outcolorspace="rgb",
        outdtype="float32" if values.dtype.kind == "f" else "uint16",
        intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
        # Its shortcut for 16 bits, a table of 33 points a side, is up to 8 % off with matrix profiles.
        flags=imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION | imagecodecs.CMS.FLAGS.NOOPTIMIZE,
    )
    return np.asarray(result).reshape(*values.shape[:2], 3)


def split_alpha(values: Array, space: Space) -> tuple[Array, Array | None]:
    """Part samples into colours ``(H, W, C)`` and, where there is a channel more, alpha ``(H, W)`` in ``[0, 1]``."""
    colours = CHANNELS[space]
    if values.shape[2] == colours:
        return values, None
    return values[..., :colours], to_unit(values[..., colours])


def grey_or_rgb(values: Array, icc: bytes | None = None, points: CodePoints | None = None) -> Raster:
    """Take ``(H, W)`` or ``(H, W, C)`` as grey (C of 1 or 2) or RGB (3 or 4); the last of an even C is alpha."""
    if values.ndim == 2:
        values = values[..., None]
    space: Space = "GRAY" if values.shape[2] <= 2 else "RGB"
    colours, alpha = split_alpha(values, space)
    return Raster(colours, space, alpha, icc, points)


def full_range(values: Array, bits: int) -> Array:
    """Integers of 8 or 16 bits that fill their type as they are; of other bits as float32 in ``[0, 1]``.

    Floating-point samples come as float32.

    Raises:
        NotFiniteError: One of these is NaN or infinite.
    """
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise NotFiniteError
        return values.astype(np.float32)
    if bits == 8 * values.itemsize and bits <= 16:
        return values
    scaled: Array = values.astype(np.float32)
    scaled /= np.float32(2.0**bits - 1)
    return scaled


def as_linear(raster: Raster) -> Raster:
    """Floating-point samples that no profile describes, as the programs that write them mean them: linear light."""
    supposed = "has floating-point samples and no profile: they are taken as linear light, and white is 1"
    return replace(raster, points=LINEAR, notice=supposed)


def from_narrow(values: Array) -> Array:
    """Integers in the range of video (16 to 235 of 8 bits, Rec. ITU-T H.273, 8.3) to float32 in ``[0, 1]``."""
    step = np.float32(2 ** (8 * values.itemsize - 8))
    return np.asarray(np.clip((values.astype(np.float32) / step - 16) / 219, 0, 1), dtype=np.float32)


def unassociated(rgb: Array, alpha: Array) -> Array:
    """Colours that were multiplied by alpha, without it: ``(H, W, C)`` and ``(H, W)`` to float32 in ``[0, 1]``."""
    opacity = alpha[..., None]
    return np.asarray(np.clip(to_unit(rgb) / np.where(opacity > 0, opacity, 1), 0, 1), dtype=np.float32)


def over_white(rgb: Array, alpha: Array) -> Array:
    """Composite on white in sRGB values, as browsers do: ``(H, W, 3)`` and ``(H, W)`` to ``(H, W, 3)``."""
    opacity = alpha[..., None]
    return np.asarray(rgb * opacity + (1.0 - opacity))


def off_white(rgb: Array, alpha: Array) -> Array:
    """Invert ``over_white``: the colours that give ``rgb`` when shown with ``alpha`` over white.

    Where a colour is darker than its alpha can show, the nearest that it can is used, but for colours that are
    beyond ``[0, 1]`` themselves; where alpha is 0 any colour would do and ``rgb`` stays.
    """
    opacity = alpha[..., None]
    inverse = (rgb - (1.0 - opacity)) / np.where(opacity > 0, opacity, 1.0)
    return np.where(opacity > 0, np.clip(inverse, np.minimum(rgb, 0.0), np.maximum(rgb, 1.0)), rgb)
