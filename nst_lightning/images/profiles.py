"""The colour spaces that pictures are written in: their profiles, and sRGB values brought into them."""

from __future__ import annotations

import functools
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nst_lightning.errors import UserError, notice
from nst_lightning.images.codepoints import adobe_rgb_profile, icc_tags, linear_profile
from nst_lightning.images.color import Array, extended_linear, srgb_profile, to_unit, transform

NAMES = ("srgb", "display-p3", "adobe-rgb", "content")
_ALIASES = {"p3": "display-p3", "adobergb1998": "adobe-rgb", "a98rgb": "adobe-rgb"}
_P3_PRIMARIES, _SRGB_CURVE = 12, 13  # of ITU-T H.273
_DARKEST_GREY = 0.35  # least light of middle grey over sRGB's: linear light has 0.21, a gamma of 1.8 has 0.42
_LARGEST = 1 << 20  # most bytes of a profile: readers of PNG, Pillow among them, drop larger ones silently


@dataclass(frozen=True)
class ColorSpace:
    """A space to write in."""

    name: str  # as it is asked for
    icc: bytes  # its profile; the same bytes each time
    cicp: tuple[int, int] = (2, 2)  # its primaries and transfer function as ITU-T H.273 numbers them; 2 is unspecified

    @property
    def is_srgb(self) -> bool:
        """Whether it is sRGB itself; any other may hold colours that sRGB does not."""
        return self.name == "srgb"


def check_color_space(name: str) -> str:
    """The space that a name means, however it is spelt; a UserError if there is none."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    found = _ALIASES.get(plain) or next((known for known in NAMES if known.replace("-", "") == plain), None)
    if found is None:
        raise UserError(f"color_space: must be one of {', '.join(NAMES)}, got '{name}'; srgb is right for the web")
    return found


@functools.cache
def color_space(name: str) -> ColorSpace:
    """The space of a name that ``check_color_space`` gave, but for ``content``."""
    if name == "display-p3":
        return ColorSpace(name, _display_p3_profile(), (_P3_PRIMARIES, _SRGB_CURVE))
    if name == "adobe-rgb":
        profile = adobe_rgb_profile()
        return ColorSpace(name, profile[:24] + srgb_profile()[24:36] + profile[36:])  # dated as that one is
    return ColorSpace("srgb", srgb_profile(), (1, _SRGB_CURVE))


def space_of_content(profile: bytes | None, path: Path | None) -> ColorSpace:
    """The space that a picture came in, by its profile; sRGB without any, or, with a notice, if it is of no use."""
    plain = color_space("srgb")
    if profile is None:
        return plain
    space = ColorSpace("content", profile)
    if profile[16:20] != b"RGB ":  # ICC.1:2022, 7.2.6
        reason = f"it is for {profile[16:20].decode('latin-1').strip()}"
    elif len(profile) > _LARGEST:
        reason = f"it has {len(profile)} bytes, more than readers of PNG take"
    else:
        try:
            grey = float(to_space(np.full((1, 2, 3), 0.5, np.float32), space).mean())
        except (RuntimeError, TypeError, ValueError) as error:  # imagecodecs' CmsError is a RuntimeError
            reason = str(error)
        else:
            if grey > _DARKEST_GREY:
                return space
            reason = "its values are linear light, whose steps show in the dark"
    notice(f"color_space: the profile of '{path}' cannot be written with ({reason}); sRGB is taken")
    return plain


def to_space(rgb: Array, space: ColorSpace) -> Array:
    """Bring sRGB values into a colour space; what lies outside of it is clipped there, and not before.

    Takes ``(H, W, 3)`` float32, gamma-encoded sRGB, beyond ``[0, 1]`` as ``extended_linear`` understands it; returns
    the same in ``[0, 1]``. Relative colorimetric with black point compensation, as in reading. A profile of no use
    raises a RuntimeError.
    """
    return to_unit(transform(extended_linear(rgb), "RGB", linear_profile(), space.icc))


def _display_p3_profile() -> bytes:
    """LittleCMS' own sRGB profile, whose curve is exact, with P3's primaries, which it computes for D65 under D50."""
    colorants = icc_tags(linear_profile(_P3_PRIMARIES))
    # ICC.1:2022, 10.15: multiLocalizedUnicodeType with one record.
    text = "Display P3".encode("utf-16-be")
    description = b"mluc" + struct.pack(">4xII2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    changed = {tag: colorants[tag] for tag in (b"rXYZ", b"gXYZ", b"bXYZ", b"chrm")}
    # A copy of sRGB's profile with these tags.
    tags = {**icc_tags(srgb_profile()), **changed, b"desc": description}
    table, data = struct.pack(">I", len(tags)), b""
    start = 132 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4sII", name, start + len(data), len(value))
        data += value + b"\0" * (-len(value) % 4)
    return struct.pack(">I", start + len(data)) + srgb_profile()[4:128] + table + data
