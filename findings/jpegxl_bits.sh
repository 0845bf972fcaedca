#!/usr/bin/env bash
# imagecodecs 2026.3.6, jpegxl_decode: what is white in a JPEG XL of 10 bits?
# Expected: 65535. The array is uint16, and libjxl by default scales what it gives out to the range of the type that it
# is asked for; pillow-jxl-plugin 1.3.8, on the same library, does so in its 8 bits.
# Seen: 1023, in the range of the code stream, and neither array nor decoder says how many bits that are: a white picture
# of 10 bits and a nearly black one of 16 come as the same array.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check imagecodecs==2026.3.6 pillow==13.0.0 pillow-jxl-plugin==1.3.8 numpy
v/bin/python - <<'P'
import io
import sys

import imagecodecs
import numpy as np
import pillow_jxl  # noqa: F401
from PIL import Image

values = np.full((16, 16, 3), 1023, np.uint16)
white = imagecodecs.jpegxl_encode(values, bitspersample=10, lossless=True)
black = imagecodecs.jpegxl_encode(values, bitspersample=16, lossless=True)
seen = [imagecodecs.jpegxl_decode(data) for data in (white, black)]
eight = [int(np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0]) for data in (white, black)]
print("imagecodecs", imagecodecs.__version__, [(array.dtype.name, int(array[0, 0, 0])) for array in seen])
print("pillow-jxl-plugin, of 255:", eight)
sys.exit(not (np.array_equal(*seen) and seen[0].max() == 1023 and eight == [255, 3]))
P
