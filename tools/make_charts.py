"""Write the charts of tests/charts: 24 patches in each kind of file that is read, by tools that are not the reader's.

    python tools/make_charts.py tests/charts [NAME ...]

Needs these programs, of Debian 12's packages: avifenc (libavif-bin), heif-enc (libheif-examples), cjxl (libjxl-tools),
opj_compress (libopenjp2-tools), cjpeg (libjpeg-turbo-progs), jpeg (libjpeg-tools), exiftool (libimage-exiftool-perl),
convert (imagemagick), cwebp and webpmux (webp), ppmtotga and ppmtogif (netpbm). Where no program writes a kind, its
bytes are written here, by the standard.

Each chart shows ``colours.CHECKER``, or ``colours.GREYS``, in six columns and four rows of patches. CHARTS says in
which encoding, and how far a reader may be off in levels of 8 bits: 1, or 2 where chroma is subsampled or lossy.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import colours

PATCH, COLUMNS, ROWS = 8, 6, 4
HEIGHT, WIDTH = PATCH * ROWS, PATCH * COLUMNS
CONVERT = os.environ.get("CONVERT", "convert-im6.q16")


Maker = Callable[[Path, np.ndarray], None]
Tag = tuple[int, int, list[int] | bytes]  # of TIFF: its number, its type, its values


class Chart(NamedTuple):
    """A file of tests/charts.

    Attributes:
        make: Writes the file from (H, W, C) samples in [0, 1]; it may use the current folder.
        encoding: Key of ``colours.ENCODINGS``.
        grey: Whether it shows ``colours.GREYS`` in one channel.
        levels: How far a reader may be off, of 255.
        patch: Side of a patch in pixels: 16 where chroma is subsampled, 4 where nothing is compressed.
        lightness: Whether the first sample is L* of L*a*b*.
        alpha: Whether ``colours.ALPHA`` is its last channel.
    """

    make: Maker
    encoding: str = "srgb"
    grey: bool = False
    levels: float = 1.0
    patch: int = PATCH
    lightness: bool = False
    alpha: bool = False


def _patches(values: np.ndarray, patch: int) -> np.ndarray:
    """(24, C) as (H, W, C)."""
    return values.reshape(ROWS, COLUMNS, -1).repeat(patch, 0).repeat(patch, 1)


def _run(*command: object) -> None:
    """Start a program; its complaints are shown if it fails."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{command}: {result.stdout[-1000:]} {result.stderr[-1000:]}")


def _steps(samples: np.ndarray, bits: int) -> np.ndarray:
    """Samples in [0, 1] as integers."""
    kind = np.uint8 if bits <= 8 else np.uint16
    return np.rint(np.clip(samples, 0, 1) * (2**bits - 1)).astype(kind)


# PNG, by hand


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_bytes(samples: np.ndarray, bits: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Grey, grey and alpha, RGB or RGBA, of 8 or 16 bits."""
    return _png_of(_steps(samples, bits), bits, {1: 0, 2: 4, 3: 2, 4: 6}[samples.shape[2]], *chunks)


def _png_of(values: np.ndarray, bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    rows = values.astype(">u2" if bits == 16 else "u1")
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows), 9)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*part) for part in parts)


def _png(bits: int, *chunks: tuple[bytes, bytes]) -> Maker:
    return lambda path, samples: path.write_bytes(_png_bytes(samples, bits, *chunks))


def _palette_png(*chunks: tuple[bytes, bytes]) -> Maker:
    def make(path: Path, samples: np.ndarray) -> None:
        colours_of_patches = _steps(samples[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH], 8).reshape(24, 3)
        index = _patches(np.arange(24), PATCH)
        path.write_bytes(_png_of(index, 8, 3, *chunks, (b"PLTE", colours_of_patches.tobytes())))

    return make


def _narrow_png(path: Path, samples: np.ndarray) -> None:
    values = np.rint(16 * 256 + samples * 219 * 256).astype(np.uint16)
    path.write_bytes(_png_of(values, 16, 2, (b"cICP", bytes([1, 13, 0, 0]))))


def _animated_png(path: Path, samples: np.ndarray) -> None:
    """The first of two frames; the second is black."""
    height, width = samples.shape[:2]
    frame = struct.pack(">IIIIHHBB", width, height, 0, 0, 1, 10, 0, 0)
    black = zlib.compress(bytes((3 * width + 1) * height))
    whole = _png_bytes(samples, 8, (b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", struct.pack(">I", 0) + frame))
    second = _png_chunk(b"fcTL", struct.pack(">I", 1) + frame) + _png_chunk(b"fdAT", struct.pack(">I", 2) + black)
    path.write_bytes(whole[:-12] + second + whole[-12:])


def _gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def _chromaticities(primaries: tuple[tuple[float, float], ...]) -> tuple[bytes, bytes]:
    numbers = [number for point in (colours.D65, *primaries) for number in point]
    return b"cHRM", struct.pack(">8I", *(round(number * 100_000) for number in numbers))


# An ICC profile, by hand (ICC.1:2022): three primaries and sRGB's curve, or a gamma


def _icc(primaries: tuple[tuple[float, float], ...], exponent: float | None = None) -> bytes:
    scale = (colours.BRADFORD @ colours.chromaticity(*colours.D50)) / (
        colours.BRADFORD @ colours.chromaticity(*colours.D65)
    )
    adapt = np.linalg.inv(colours.BRADFORD) @ np.diag(scale) @ colours.BRADFORD
    columns = (adapt @ colours.rgb_to_xyz(primaries)).T

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    curve = b"para\0\0\0\0" + (
        b"\0\3\0\0" + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        if exponent is None
        else b"\0\0\0\0" + fixed(exponent)
    )
    text = "chart".encode("utf-16-be")
    words = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    tags = [
        (b"desc", words),
        (b"cprt", words),
        (b"wtpt", b"XYZ \0\0\0\0" + fixed(0.9642, 1.0, 0.8249)),
        (b"chad", b"sf32\0\0\0\0" + fixed(*adapt.ravel())),
        *(
            (name, b"XYZ \0\0\0\0" + fixed(*column))
            for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
        ),
        *((name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")),
    ]
    table, body, place = b"", b"", 132 + 12 * len(tags)
    for name, data in tags:
        table += name + struct.pack(">II", place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = place + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x04400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp")
    head = head.ljust(68, b"\0") + fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


P3_ICC = _icc(colours.P3)
ICCP = (b"iCCP", b"chart\0\0" + zlib.compress(P3_ICC))
LINEAR_ICCP = (b"iCCP", b"chart\0\0" + zlib.compress(_icc(colours.SRGB, 1.0)))


# Programs that take PNG, PPM, PGM or PFM


def _pnm_bytes(samples: np.ndarray, peak: int) -> bytes:
    values = np.rint(np.clip(samples, 0, 1) * peak).astype(">u2" if peak > 255 else "u1")
    kind = b"P5" if values.shape[2] == 1 else b"P6"
    return kind + f"\n{values.shape[1]} {values.shape[0]}\n{peak}\n".encode() + values.tobytes()


def _pfm_bytes(samples: np.ndarray) -> bytes:
    kind = b"Pf" if samples.shape[2] == 1 else b"PF"
    lines = samples[::-1].astype("<f4").tobytes()
    return kind + f"\n{samples.shape[1]} {samples.shape[0]}\n-1.0\n".encode() + lines


def _through(
    *command: object, source: str = "png16", turned: Callable[[np.ndarray], np.ndarray] | None = None
) -> Maker:
    """A maker that writes the source IN and runs a command with IN and OUT in it."""

    def make(path: Path, samples: np.ndarray) -> None:
        samples = samples if turned is None else turned(samples)
        data, suffix = {
            "png8": lambda: (_png_bytes(samples, 8), "png"),
            "png16": lambda: (_png_bytes(samples, 16), "png"),
            "png8icc": lambda: (_png_bytes(samples, 8, ICCP), "png"),
            "png16icc": lambda: (_png_bytes(samples, 16, ICCP), "png"),
            "pnm": lambda: (_pnm_bytes(samples, 255), "ppm"),
            "pnm12": lambda: (_pnm_bytes(samples, 4095), "ppm"),
            "pnm16": lambda: (_pnm_bytes(samples, 65535), "ppm"),
            "pfm": lambda: (_pfm_bytes(samples), "pfm"),
        }[source]()
        Path(f"in.{suffix}").write_bytes(data)
        _run(*({"IN": f"in.{suffix}", "OUT": path}.get(str(part), part) for part in command))

    return make


def _avif(*options: object, source: str = "png16", turned: Callable[[np.ndarray], np.ndarray] | None = None) -> Maker:
    exact = ("--min", 0, "--max", 0, "-s", 6, "--ignore-icc")
    return _through("avifenc", *exact, *options, "IN", "OUT", source=source, turned=turned)


def _heic(*options: object, source: str = "png16") -> Maker:
    return _through("heif-enc", *options, "IN", "-o", "OUT", source=source)


EXACT_ALPHA = ("--minalpha", 0, "--maxalpha", 0)
EXACT_HEIC = ("-L", "-p", "chroma=444")


def _jxl(*options: object, source: str = "png16") -> Maker:
    return _through("cjxl", "IN", "OUT", *options, source=source)


def _jpeg(*options: object, tags: tuple[str, ...] = (), source: str = "pnm") -> Maker:
    """By cjpeg, and tags by exiftool."""

    def make(path: Path, samples: np.ndarray) -> None:
        _through("cjpeg", "-quality", 100, *options, "-outfile", "OUT", "IN", source=source)(path, samples)
        if tags:
            Path("p3.icc").write_bytes(P3_ICC)
            _run("exiftool", "-q", "-overwrite_original", *tags, path)

    return make


def _with_exif(make: Maker) -> Maker:
    """A maker whose file says in EXIF that it is to be turned, and not in the container, which alone has the word."""

    def turned(path: Path, samples: np.ndarray) -> None:
        make(path, samples)
        _run("exiftool", "-q", "-overwrite_original", "-Orientation#=6", path)

    return turned


def _transcoded_jpeg(path: Path, samples: np.ndarray) -> None:
    """A JPEG that its EXIF turns, packed into JPEG XL without loss."""
    turned = Path("turned.jpg")
    _jpeg("-sample", "1x1", tags=("-Orientation#=6",))(turned, np.rot90(samples))
    _run("cjxl", turned, path)


def _heic_with(
    box: bytes, *options: object, source: str = "png16", turned: Callable[[np.ndarray], np.ndarray] | None = None
) -> Maker:
    """A maker of a HEIC with one property more, which heif-enc has no option for (ISO/IEC 23008-12, 6.5)."""

    def make(path: Path, samples: np.ndarray) -> None:
        _heic(*EXACT_HEIC, *options, source=source)(path, samples if turned is None else turned(samples))
        data = bytearray(path.read_bytes())
        place = {kind: data.index(kind) - 4 for kind in (b"meta", b"iloc", b"iprp", b"ipco", b"ipma")}
        properties = sum(data.count(kind) for kind in (b"hvcC", b"ispe", b"pixi", b"colr"))
        size = {kind: struct.unpack_from(">I", data, start)[0] for kind, start in place.items()}
        # heif-enc writes a grid of one tile, whose entry in ipma is the last, and its two properties end that box.
        end, iloc = place[b"ipma"] + size[b"ipma"], place[b"iloc"]
        if data[end - 3] != 2 or data[iloc + 12 : iloc + 14] != b"\x44\x40":
            raise RuntimeError("the boxes are not as expected")
        more = len(box) + 1
        for kind, grown in ((b"meta", more), (b"iprp", more), (b"ipco", len(box)), (b"ipma", 1)):
            struct.pack_into(">I", data, place[kind], size[kind] + grown)
        base = iloc + 22  # of the first item, whose pixels lie behind all this
        struct.pack_into(">I", data, base, struct.unpack_from(">I", data, base)[0] + more)
        data[end - 3] = 3
        data[end:end] = bytes([0x80 | (properties + 1)])
        end = place[b"ipco"] + size[b"ipco"]
        data[end:end] = box
        path.write_bytes(data)

    return make


def _nclx_heic(primaries: int, transfer: int, matrix: int) -> Maker:
    box = struct.pack(">I4s4sHHHB", 19, b"colr", b"nclx", primaries, transfer, matrix, 0x80)
    return _heic_with(box, "-b", 10, f"--matrix_coefficients={matrix}")


def _jp2_with_profile(path: Path, samples: np.ndarray) -> None:
    _through("opj_compress", "-i", "IN", "-o", "OUT", source="png16")(path, samples)
    data = path.read_bytes()
    colr, head = data.index(b"colr") - 4, data.index(b"jp2h") - 4
    size = struct.unpack_from(">I", data, colr)[0]
    box = struct.pack(">I4s", 11 + len(P3_ICC), b"colr") + b"\2\0\0" + P3_ICC
    whole = struct.unpack_from(">I", data, head)[0] - size + len(box)
    path.write_bytes(data[:head] + struct.pack(">I", whole) + data[head + 4 : colr] + box + data[colr + size :])


def _sycc_jp2(path: Path, samples: np.ndarray) -> None:
    """YCbCr of 8 bits, chroma of half the size."""
    rgb = samples * 255
    y = rgb @ [0.299, 0.587, 0.114]
    cb, cr = (rgb[..., 2] - y) / 1.772 + 128, (rgb[..., 0] - y) / 1.402 + 128
    planes = [y, cb[::2, ::2], cr[::2, ::2]]
    Path("in.yuv").write_bytes(b"".join(np.rint(np.clip(plane, 0, 255)).astype(np.uint8).tobytes() for plane in planes))
    size = f"{samples.shape[1]},{samples.shape[0]},3,8,u@1x1:2x2:2x2"
    _run("opj_compress", "-i", "in.yuv", "-o", path, "-F", size, "-mct", 0)


# TIFF and BMP, by hand


def _tiff(photometric: int, *more: Tag, order: str = "<", planar: bool = False) -> Maker:
    """A maker of a TIFF with one uncompressed strip, or one a plane, of whatever array it is given."""

    def make(path: Path, values: np.ndarray) -> None:
        planes = list(np.moveaxis(values, -1, 0)) if planar else [values]
        data = [np.ascontiguousarray(plane, values.dtype.newbyteorder(order)).tobytes() for plane in planes]
        path.write_bytes(_tiff_bytes(values, photometric, data, order, more, planar))

    return make


def _tiff_bytes(
    values: np.ndarray,
    photometric: int,
    strips: list[bytes],
    order: str,
    more: Sequence[Tag] = (),
    planar: bool = False,
    compression: int = 1,
) -> bytes:
    height, width, channels = values.shape
    kind = {"f": 3, "i": 2, "u": 1}[values.dtype.kind]
    entries: dict[int, tuple[int, list[int] | bytes]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8 * values.itemsize] * channels),
        259: (3, [compression]),
        262: (3, [photometric]),
        277: (3, [channels]),
        278: (4, [height]),
        279: (4, [len(strip) for strip in strips]),
        284: (3, [2 if planar else 1]),
        339: (3, [kind] * channels),
    }
    entries.update({tag: (code, content) for tag, code, content in more})
    offsets = [8]
    for strip in strips[:-1]:
        offsets.append(offsets[-1] + len(strip) + len(strip) % 2)
    entries[273] = (4, offsets)
    pixels = b"".join(strip + bytes(len(strip) % 2) for strip in strips)
    start = 8 + len(pixels)
    end = start + 2 + 12 * len(entries) + 4
    directory, extra = struct.pack(order + "H", len(entries)), b""
    for tag in sorted(entries):
        code, content = entries[tag]
        raw = content if isinstance(content, bytes) else struct.pack(order + f"{len(content)}{' BsHI'[code]}", *content)
        directory += struct.pack(order + "HHI", tag, code, len(content))
        if len(raw) <= 4:
            directory += raw.ljust(4, b"\0")
        else:
            directory += struct.pack(order + "I", end + len(extra))
            extra += raw + bytes(len(raw) % 2)
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HI", 42, start) + pixels + directory + bytes(4) + extra


def _tiff_of(convert: Callable[[np.ndarray], np.ndarray], photometric: int, *more: Tag, **options: Any) -> Maker:
    return lambda path, samples: _tiff(photometric, *more, **options)(path, convert(samples))


def _webp_in_tiff(path: Path, samples: np.ndarray) -> None:
    _through("cwebp", "-quiet", "-lossless", "IN", "-o", "OUT", source="png8")(Path("in.webp"), samples)
    data = Path("in.webp").read_bytes()
    path.write_bytes(_tiff_bytes(_steps(samples, 8), 2, [data], "<", compression=50001))


def _cielab(bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """TIFF 6.0, section 23: L* of 100 is all ones, a* and b* are signed."""

    def convert(srgb: np.ndarray) -> np.ndarray:
        lab = colours.srgb_to_lab(srgb)
        step, kind = (1, np.uint8) if bits == 8 else (256, np.uint16)
        values = np.stack([lab[..., 0] / 100 * (2**bits - 1), lab[..., 1] * step, lab[..., 2] * step], -1)
        return np.rint(values).astype(np.int32).astype(kind)  # negative numbers wrap

    return convert


def _icclab(bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """Photometric 9, Adobe's supplement of 2002: as ICC profiles of version 2 have it."""

    def convert(srgb: np.ndarray) -> np.ndarray:
        lab = colours.srgb_to_lab(srgb)
        if bits == 8:
            return np.rint(np.stack([lab[..., 0] * 2.55, lab[..., 1] + 128, lab[..., 2] + 128], -1)).astype(np.uint8)
        return np.rint(np.stack([lab[..., 0] * 652.8, *((lab[..., k] + 128) * 256 for k in (1, 2))], -1)).astype("u2")

    return convert


def _bmp5(path: Path, samples: np.ndarray) -> None:
    """BITMAPV5HEADER with an embedded profile."""
    rows = np.ascontiguousarray(_steps(samples, 8)[::-1, :, ::-1]).tobytes()
    header = struct.pack("<IiiHHIIiiII", 124, samples.shape[1], samples.shape[0], 1, 24, 0, len(rows), 2835, 2835, 0, 0)
    header += bytes(16) + b"DEBM" + bytes(36 + 12) + struct.pack("<IIII", 4, 124 + len(rows), len(P3_ICC), 0)
    head = b"BM" + struct.pack("<IHHI", 14 + len(header) + len(rows) + len(P3_ICC), 0, 0, 14 + len(header))
    path.write_bytes(head + header + rows + P3_ICC)


def _pam(path: Path, samples: np.ndarray) -> None:
    values = np.rint(samples * 65535).astype(">u2")
    head = f"P7\nWIDTH {values.shape[1]}\nHEIGHT {values.shape[0]}\nDEPTH 3\nMAXVAL 65535\nTUPLTYPE RGB\nENDHDR\n"
    path.write_bytes(head.encode() + values.tobytes())


def _plain_ppm(path: Path, samples: np.ndarray) -> None:
    numbers = " ".join(str(value) for value in np.rint(samples * 1023).astype(int).ravel())
    text = f"P3\n# of 10 bits, as text\n{samples.shape[1]} {samples.shape[0]}\n1023\n{numbers}\n"
    path.write_bytes(text.encode())


def _webp_with_profile(path: Path, samples: np.ndarray) -> None:
    _through("cwebp", "-quiet", "-lossless", "IN", "-o", "OUT", source="png8")(Path("plain.webp"), samples)
    Path("p3.icc").write_bytes(P3_ICC)
    _run("webpmux", "-set", "icc", "p3.icc", "plain.webp", "-o", path)


def _redirected(*command: object) -> Maker:
    """A maker for programs of netpbm, which write to their output."""

    def make(path: Path, samples: np.ndarray) -> None:
        result = subprocess.run(
            [str(part) for part in command], input=_pnm_bytes(samples, 255), capture_output=True, check=True
        )
        path.write_bytes(result.stdout)

    return make


def _two_pictures(path: Path, samples: np.ndarray) -> None:
    """A HEIC whose second picture is black; the first is the primary one."""
    Path("second.png").write_bytes(_png_bytes(np.zeros_like(samples), 8))
    _through("heif-enc", *EXACT_HEIC, "IN", "second.png", "-o", "OUT", source="png8")(path, samples)


def _two_frames(*command: object) -> Maker:
    """A sequence whose second frame is black, of an animated PNG."""

    def make(path: Path, samples: np.ndarray) -> None:
        _animated_png(Path("in.apng"), samples)
        _run(*({"IN": "in.apng", "OUT": path}.get(str(part), part) for part in command))

    return make


def _avif_sequence(path: Path, samples: np.ndarray) -> None:
    Path("second.png").write_bytes(_png_bytes(np.zeros_like(samples), 8))
    _through("avifenc", "--min", 0, "--max", 0, "IN", "second.png", "-o", "OUT", source="png8")(path, samples)


def _cropped(samples: np.ndarray) -> np.ndarray:
    return np.pad(samples, ((8, 0), (16, 0), (0, 0)))


CHARTS = {
    # PNG
    "png_8.png": Chart(_png(8)),
    "png_16.png": Chart(_png(16)),
    "png_grey_16.png": Chart(_png(16), grey=True),
    "png_palette_cicp_p3.png": Chart(_palette_png((b"cICP", bytes([12, 13, 0, 1]))), "p3"),
    "png_cicp_p3_8.png": Chart(_png(8, (b"cICP", bytes([12, 13, 0, 1]))), "p3"),
    "png_cicp_p3_16.png": Chart(_png(16, (b"cICP", bytes([12, 13, 0, 1]))), "p3"),
    "png_cicp_before_iccp.png": Chart(_png(16, LINEAR_ICCP, _gamma(1.0), (b"cICP", bytes([12, 13, 0, 1]))), "p3"),
    "png_iccp_before_srgb.png": Chart(_png(16, ICCP, (b"sRGB", b"\0"), _gamma(1.0)), "p3"),
    "png_srgb_before_gama.png": Chart(_png(16, (b"sRGB", b"\0"), _gamma(1.0), _chromaticities(colours.P3))),
    "png_cicp_narrow.png": Chart(_narrow_png),
    "png_cicp_bt2020.png": Chart(_png(16, (b"cICP", bytes([9, 15, 0, 1]))), "bt2020"),
    "png_cicp_linear.png": Chart(_png(16, (b"cICP", bytes([1, 8, 0, 1]))), "linear"),
    "png_cicp_pq.png": Chart(_png(16, (b"cICP", bytes([9, 16, 0, 1]))), "pq"),
    "png_cicp_hlg.png": Chart(_png(16, (b"cICP", bytes([9, 18, 0, 1]))), "hlg"),
    "png_gama_linear.png": Chart(_png(16, _gamma(1.0)), "linear"),
    "png_gama_18.png": Chart(_png(16, _gamma(1 / 1.8)), "gamma18"),
    "png_gama_chrm_p3.png": Chart(_png(16, _gamma(1 / 2.2), _chromaticities(colours.P3)), "p3gamma22"),
    "png_gama_as_many_write_it.png": Chart(_png(8, _gamma(1 / 2.2), _chromaticities(colours.SRGB))),
    "png_grey_16_gama_linear.png": Chart(_png(16, _gamma(1.0)), "linear", grey=True),
    "png_animated.png": Chart(_animated_png),
    "png_imagemagick.png": Chart(_through(CONVERT, "IN", "-depth", 16, "OUT", source="pnm16")),
    "png_alpha_cicp_p3.png": Chart(_png(16, (b"cICP", bytes([12, 13, 0, 1]))), "p3", alpha=True),
    "png_grey_alpha.png": Chart(_png(8), grey=True, alpha=True),
    # JPEG; patches as large as its blocks, or as those of subsampled chroma, hardly lose anything
    "jpeg_444.jpg": Chart(_jpeg("-sample", "1x1")),
    "jpeg_420.jpg": Chart(_jpeg("-sample", "2x2"), levels=2, patch=16),
    "jpeg_grey.jpg": Chart(_jpeg("-grayscale"), grey=True),
    "jpeg_arithmetic.jpg": Chart(_jpeg("-sample", "1x1", "-arithmetic")),
    "jpeg_rgb.jpg": Chart(_jpeg("-rgb")),
    "jpeg_icc_p3.jpg": Chart(_jpeg("-sample", "1x1", tags=("-icc_profile<=p3.icc",)), "p3", levels=2),
    "jpeg_exif_adobe_r03.jpg": Chart(
        _jpeg("-sample", "1x1", tags=("-ColorSpace#=65535", "-InteropIndex#=R03")), "adobe", levels=2
    ),
    "jpeg_exif_adobe_2.jpg": Chart(_jpeg("-sample", "1x1", tags=("-ColorSpace#=2",)), "adobe", levels=2),
    "jpeg_exif_uncalibrated.jpg": Chart(_jpeg("-sample", "1x1", tags=("-ColorSpace#=65535",))),
    "jpeg_12_bits.jpg": Chart(_through("jpeg", "-q", 100, "-h", "IN", "OUT", source="pnm12")),
    "jpeg_12_bits_grey.jpg": Chart(_through("jpeg", "-q", 100, "-h", "IN", "OUT", source="pnm12"), grey=True),
    # HEIC
    "heic_8.heic": Chart(_heic(*EXACT_HEIC, source="png8")),
    "heic_420.heic": Chart(_heic("-q", 95, "-p", "chroma=420", source="png8"), levels=2, patch=16),
    "heic_limited.heic": Chart(_heic(*EXACT_HEIC, "--full_range_flag=0"), levels=1),
    "heic_10_p3.heic": Chart(_nclx_heic(12, 13, 6), "p3"),
    "heic_12_icc_p3.heic": Chart(_heic(*EXACT_HEIC, "-b", 12, source="png16icc"), "p3"),
    "heic_10_pq.heic": Chart(_nclx_heic(9, 16, 6), "pq", levels=2),
    "heic_10_hlg.heic": Chart(_nclx_heic(9, 18, 6), "hlg"),
    "heic_grey.heic": Chart(_heic("-L", source="png8"), grey=True),
    "heic_grey_10.heic": Chart(_heic("-L", "-b", 10), grey=True),
    "heic_turned.heic": Chart(_heic_with(struct.pack(">I4sB", 9, b"irot", 3), source="png8", turned=np.rot90)),
    "heic_alpha.heic": Chart(_heic(*EXACT_HEIC, source="png8"), alpha=True),
    "heic_alpha_10.heic": Chart(_heic(*EXACT_HEIC, "-b", 10), alpha=True),
    "heic_turned_by_exif_alone.heic": Chart(_with_exif(_heic(*EXACT_HEIC, source="png8"))),
    "heic_two_pictures.heic": Chart(_two_pictures),
    # AVIF
    "avif_8.avif": Chart(_avif("-d", 8, "-y", "444", source="png8")),
    "avif_8_rgb_planes.avif": Chart(_avif("-d", 8, "-y", "444", "--cicp", "1/13/0", source="png8")),
    "avif_420.avif": Chart(_avif("-d", 8, "-y", "420", source="png8"), levels=2, patch=16),
    "avif_10_limited.avif": Chart(_avif("-d", 10, "-y", "444", "-r", "limited", "--cicp", "1/13/1")),
    "avif_8_p3.avif": Chart(_avif("-d", 8, "-y", "444", "--cicp", "12/13/0"), "p3"),
    "avif_10_p3.avif": Chart(_avif("-d", 10, "-y", "444", "--cicp", "12/13/6"), "p3"),
    "avif_12_icc_p3.avif": Chart(
        _through("avifenc", "--min", 0, "--max", 0, "-d", 12, "IN", "OUT", source="png16icc"), "p3"
    ),
    "avif_12_rgb_planes.avif": Chart(_avif("-d", 12, "-y", "444", "--cicp", "1/13/0")),
    "avif_10_bt2020.avif": Chart(_avif("-d", 10, "-y", "444", "--cicp", "9/14/9"), "bt2020"),
    "avif_10_pq.avif": Chart(_avif("-d", 10, "-y", "444", "--cicp", "9/16/9"), "pq", levels=2),
    "avif_10_hlg.avif": Chart(_avif("-d", 10, "-y", "444", "--cicp", "9/18/9"), "hlg"),
    "avif_grey.avif": Chart(_avif("-d", 8, "-y", "400", source="png8"), grey=True),
    "avif_grey_10.avif": Chart(_avif("-d", 10, "-y", "400"), grey=True),
    "avif_alpha.avif": Chart(_avif(*EXACT_ALPHA, "-d", 8, "-y", "444", source="png8"), alpha=True),
    "avif_alpha_12_premultiplied.avif": Chart(
        _avif(*EXACT_ALPHA, "-p", "-d", 12, "-y", "444", "--cicp", "12/13/0"), "p3", alpha=True
    ),
    "avif_grey_alpha_10.avif": Chart(_avif(*EXACT_ALPHA, "-d", 10, "-y", "400"), grey=True, alpha=True),
    "avif_turned.avif": Chart(_avif("-d", 10, "-y", "444", "--irot", 3, turned=np.rot90)),
    "avif_turned_by_exif_alone.avif": Chart(_with_exif(_avif("-d", 10, "-y", "444"))),
    "avif_mirrored.avif": Chart(_avif("-d", 8, "-y", "444", "--imir", 1, source="png8", turned=lambda s: s[:, ::-1])),
    "avif_turned_and_mirrored.avif": Chart(
        _avif("-d", 10, "-y", "444", "--irot", 3, "--imir", 1, turned=lambda s: np.rot90(s[:, ::-1]))
    ),
    "avif_cropped.avif": Chart(_avif("-d", 10, "-y", "444", "--crop", "16,8,48,32", turned=_cropped)),
    "avif_sequence.avif": Chart(_avif_sequence),
    # JPEG XL
    "jxl_8.jxl": Chart(_jxl("-d", 0, source="png8")),
    "jxl_10.jxl": Chart(_jxl("-d", 0, "--override_bitdepth=10")),
    "jxl_16.jxl": Chart(_jxl("-d", 0)),
    "jxl_lossy.jxl": Chart(_jxl("-d", 0.1), levels=2, patch=16),
    "jxl_float.jxl": Chart(_jxl("-d", 0, "-x", "color_space=RGB_D65_SRG_Rel_Lin", source="pfm"), "linear"),
    "jxl_16_icc_p3.jxl": Chart(_jxl("-d", 0, source="png16icc"), "p3"),
    "jxl_lossy_icc_p3.jxl": Chart(_jxl("-d", 0.1, source="png16icc"), "p3", levels=2, patch=16),
    "jxl_p3.jxl": Chart(_jxl("-d", 0, "-x", "color_space=RGB_D65_DCI_Rel_SRG"), "p3"),
    "jxl_pq.jxl": Chart(_jxl("-d", 0, "-x", "color_space=RGB_D65_202_Rel_PeQ"), "pq"),
    "jxl_hlg.jxl": Chart(_jxl("-d", 0, "-x", "color_space=RGB_D65_202_Rel_HLG"), "hlg"),
    "jxl_grey.jxl": Chart(_jxl("-d", 0, source="png8"), grey=True),
    "jxl_grey_16.jxl": Chart(_jxl("-d", 0), grey=True),
    "jxl_alpha.jxl": Chart(_jxl("-d", 0), alpha=True),
    "jxl_alpha_10.jxl": Chart(_jxl("-d", 0, "--override_bitdepth=10"), alpha=True),
    "jxl_grey_alpha.jxl": Chart(_jxl("-d", 0, source="png8"), grey=True, alpha=True),
    "jxl_of_a_turned_jpeg.jxl": Chart(_transcoded_jpeg, levels=2),
    "jxl_turned_by_exif_alone.jxl": Chart(_with_exif(_jxl("-d", 0, "--container=1"))),
    "jxl_animated.jxl": Chart(_two_frames("cjxl", "IN", "OUT", "-d", 0)),
    # JPEG 2000
    "jp2_8.jp2": Chart(_through("opj_compress", "-i", "IN", "-o", "OUT", source="png8")),
    "jp2_12.jp2": Chart(_through("opj_compress", "-i", "IN", "-o", "OUT", source="pnm12")),
    "jp2_16.j2k": Chart(_through("opj_compress", "-i", "IN", "-o", "OUT")),
    "jp2_grey_16.jp2": Chart(_through("opj_compress", "-i", "IN", "-o", "OUT"), grey=True),
    "jp2_alpha_16.jp2": Chart(_through("opj_compress", "-i", "IN", "-o", "OUT"), alpha=True),
    "jp2_16_icc_p3.jp2": Chart(_jp2_with_profile, "p3"),
    "jp2_sycc_420.jp2": Chart(_sycc_jp2, levels=2, patch=16),
    # TIFF
    "tiff_float.tif": Chart(_tiff_of(np.float32, 2), "linear", patch=4),
    "tiff_half_icc_p3.tif": Chart(_tiff_of(np.float16, 2, (34675, 1, P3_ICC)), "p3", patch=4),
    "tiff_float_grey.tif": Chart(_tiff_of(np.float32, 1), "linear", grey=True, patch=4),
    "tiff_16_planar_icc_p3.tif": Chart(
        _tiff_of(lambda s: _steps(s, 16), 2, (34675, 1, P3_ICC), order=">", planar=True), "p3", patch=4
    ),
    "tiff_16_white_is_zero.tif": Chart(_tiff_of(lambda s: _steps(1 - s, 16), 0), grey=True, patch=4),
    "tiff_8_planar.tif": Chart(_tiff_of(lambda s: _steps(s, 8), 2, planar=True), patch=4),
    # L*a*b* of 8 bits has steps of a* and b* that are worth more than a level.
    "tiff_lab_8.tif": Chart(_tiff_of(_cielab(8), 8), levels=2, patch=4, lightness=True),
    "tiff_lab_16.tif": Chart(_tiff_of(_cielab(16), 8), patch=4, lightness=True),
    "tiff_icclab_8.tif": Chart(_tiff_of(_icclab(8), 9), levels=2, patch=4, lightness=True),
    "tiff_icclab_16.tif": Chart(_tiff_of(_icclab(16), 9), patch=4, lightness=True),
    "tiff_webp.tif": Chart(_webp_in_tiff),
    "tiff_imagemagick_16.tif": Chart(_through(CONVERT, "IN", "-compress", "zip", "OUT")),
    # Others
    "bmp_5_icc_p3.bmp": Chart(_bmp5, "p3", patch=4),
    "ppm_16.ppm": Chart(_through(CONVERT, "IN", "-depth", 16, "OUT"), patch=4),
    "ppm_12.ppm": Chart(lambda path, samples: path.write_bytes(_pnm_bytes(samples, 4095)), patch=4),
    "ppm_10_plain.ppm": Chart(_plain_ppm, patch=4),
    "pgm_10.pgm": Chart(lambda path, samples: path.write_bytes(_pnm_bytes(samples, 1023)), grey=True, patch=4),
    "pam_16.pam": Chart(_pam, patch=4),
    "pfm.pfm": Chart(lambda path, samples: path.write_bytes(_pfm_bytes(samples)), "linear", patch=4),
    "pfm_grey.pfm": Chart(lambda path, samples: path.write_bytes(_pfm_bytes(samples)), "linear", grey=True, patch=4),
    "webp_lossless.webp": Chart(_through("cwebp", "-quiet", "-lossless", "IN", "-o", "OUT", source="png8")),
    "webp_icc_p3.webp": Chart(_webp_with_profile, "p3"),
    "tga.tga": Chart(_redirected("ppmtotga")),
    "gif.gif": Chart(_redirected("ppmtogif")),
}


def samples_of(chart: Chart) -> np.ndarray:
    """(H, W, C): what the file holds, in [0, 1]."""
    srgb = colours.GREYS[:, None] if chart.grey else colours.CHECKER
    samples = colours.ENCODINGS[chart.encoding](srgb)
    if chart.alpha:
        samples = np.concatenate([samples, colours.ALPHA[:, None]], 1)
    return _patches(samples, chart.patch)


def main(folder: Path, names: list[str]) -> None:
    """Write all charts, or those of some names."""
    folder = folder.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        for name, chart in CHARTS.items():
            if not names or name in names:
                chart.make(folder / name, samples_of(chart))
                print(f"{name}: {(folder / name).stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
