#!/usr/bin/env bash
# OpenImageIO 3.2.2.0: what is a colour under transparency, by kind of file, and which JPEG XL files does it read?
# Expected: colours multiplied by alpha, as its documentation promises of every reader that does not say otherwise in the
# attribute oiio:UnassociatedAlpha; and any file that libjxl's own encoder writes.
# Seen: the same picture comes multiplied by alpha as PNG, TIFF and WebP, not multiplied as JPEG XL, and multiplied by
# alpha to the power of 2.2 as JPEG 2000, without the attribute; and a whole, valid JPEG XL of less than 128 bytes (a
# plain grey tile) is refused as corrupt.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check OpenImageIO==3.2.2.0 imagecodecs==2026.3.6 pillow==13.0.0 numpy
v/bin/python - <<'P'
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import OpenImageIO as oiio
from PIL import Image

grey = imagecodecs.jpegxl_encode(np.full((64, 64, 3), 128, np.uint8), lossless=True)
Path("grey.jxl").write_bytes(grey)
assert (imagecodecs.jpegxl_decode(grey) == 128).all()  # libjxl reads it
opened = oiio.ImageInput.open("grey.jxl")
print("OpenImageIO", oiio.__version__, "a JPEG XL of", len(grey), "bytes:", opened or oiio.geterror().splitlines()[0])

pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
pixels[8, 8] = 200, 100, 0, 128
Path("alpha.jxl").write_bytes(imagecodecs.jpegxl_encode(pixels, lossless=True))
Path("alpha.jp2").write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True))
Image.fromarray(pixels).save("alpha.png")
Image.fromarray(pixels).save("alpha.tif")
Image.fromarray(pixels).save("alpha.webp", lossless=True, exact=True)
seen = {}
for kind in ("png", "tif", "webp", "jxl", "jp2"):
    image = oiio.ImageBuf(f"alpha.{kind}")
    seen[kind] = image.get_pixels(oiio.UINT8)[8, 8].tolist()
    print(kind, seen[kind], "unassociated:", image.spec().get_int_attribute("oiio:UnassociatedAlpha"))
multiplied = [seen[kind] == [100, 50, 0, 128] for kind in ("png", "tif", "webp")]
others = seen["jxl"] == [200, 100, 0, 128] and seen["jp2"] == [43, 21, 0, 128]
sys.exit(not (opened is None and len(grey) < 128 and all(multiplied) and others))
P
