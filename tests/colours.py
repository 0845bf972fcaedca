"""Colour spaces by the formulas of their standards, without littleCMS: what readers of pictures are compared with."""

import numpy as np

D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
# BabelColor's averages of the ColorChecker's 24 patches, sRGB of 8 bits, cyan moved into the gamut, all drawn to grey
# by a seventh: 8 bits of a wider space have steps of more than a level of sRGB where colours are strong.
CHECKER = np.array(
    [
        [115, 82, 68], [194, 150, 130], [98, 122, 157], [87, 108, 67], [133, 128, 177], [103, 189, 170],
        [214, 126, 44], [80, 91, 166], [193, 90, 99], [94, 60, 108], [157, 188, 64], [224, 163, 46],
        [56, 61, 150], [70, 148, 73], [175, 54, 60], [231, 199, 31], [187, 86, 149], [58, 133, 161],
        [243, 243, 242], [200, 200, 200], [160, 160, 160], [122, 122, 121], [85, 85, 85], [52, 52, 52],
    ],
    float,
)  # fmt: skip
CHECKER = np.rint(CHECKER + (128 - CHECKER) / 7) / 255
GREYS = np.linspace(4, 251, 24).round() / 255
ALPHA = np.linspace(255, 60, 24).round() / 255


def chromaticity(x, y):
    return np.array([x / y, 1, (1 - x - y) / y])


def rgb_to_xyz(primaries, white=D65):
    columns = np.stack([chromaticity(*primary) for primary in primaries], axis=1)
    return columns * np.linalg.solve(columns, chromaticity(*white))


def srgb_to_light(code):
    code = np.asarray(code, float)
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def light_to_srgb(light):
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def light_to_bt709(light):
    return np.where(light < 0.018053968510807, 4.5 * light, 1.09929682680944 * light**0.45 - 0.09929682680944)


def nits_to_pq(nits):
    """Inverse EOTF of SMPTE ST 2084."""
    power = (np.asarray(nits, float) / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def nits_to_hlg(rgb):
    """Inverse OOTF of a display of 1000 cd/m2 and OETF of BT.2100, for (..., 3) in BT.2020."""
    display = np.asarray(rgb, float) / 1000
    luminance = (display @ [0.2627, 0.6780, 0.0593])[..., None]
    scene = display * np.where(luminance > 0, luminance, 1) ** ((1 - 1.2) / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def converted(srgb, primaries, encode):
    """(..., 3) in sRGB as another space's samples; ``encode`` goes from light in [0, 1] to samples."""
    to_other = np.linalg.inv(rgb_to_xyz(primaries)) @ rgb_to_xyz(SRGB)
    return encode(np.clip(srgb_to_light(srgb) @ to_other.T, 0, 1))


def srgb_to_lab(srgb):
    """L*a*b* under D50 by CIE 15, after an adaptation by Bradford."""
    scale = (BRADFORD @ chromaticity(*D50)) / (BRADFORD @ chromaticity(*D65))
    adapt = np.linalg.inv(BRADFORD) @ np.diag(scale) @ BRADFORD
    relative = srgb_to_light(srgb) @ (adapt @ rgb_to_xyz(SRGB)).T / chromaticity(*D50)
    f = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


# Samples in [0, 1] of the same colours in each space.
ENCODINGS = {
    "srgb": lambda srgb: np.asarray(srgb, float),
    "p3": lambda srgb: converted(srgb, P3, light_to_srgb),
    "adobe": lambda srgb: converted(srgb, ADOBE, lambda light: light ** (256 / 563)),
    "bt2020": lambda srgb: converted(srgb, BT2020, light_to_bt709),
    "linear": srgb_to_light,
    "gamma18": lambda srgb: srgb_to_light(srgb) ** (1 / 1.8),
    "p3gamma22": lambda srgb: converted(srgb, P3, lambda light: light ** (1 / 2.2)),
    "pq": lambda srgb: converted(srgb, BT2020, lambda light: nits_to_pq(203 * light)),
    "hlg": lambda srgb: converted(srgb, BT2020, lambda light: nits_to_hlg(203 * light)),
}
