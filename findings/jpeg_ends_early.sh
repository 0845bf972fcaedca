#!/usr/bin/env bash
# A JPEG of which a tenth is lost, but which ends with its end marker (a copy that was stopped and closed properly, a
# card with a bad block). Expected beforehand: as Pillow refuses truncated files unless it is told otherwise
# (ImageFile.LOAD_TRUNCATED_IMAGES), and imagecodecs raises for damaged data, both refuse it, or at least warn.
# Seen with Pillow 12.0.0 and imagecodecs 2025.11.11: both decode it without an error or a warning; what is missing is
# grey (128, 128, 128). Only without the end marker does Pillow refuse it, and then though no pixel may be missing.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv env
env/bin/pip install -q pillow==12.0.0 imagecodecs==2025.11.11 numpy
env/bin/python -W error - <<'P'
import io

import imagecodecs
import numpy as np
from PIL import Image, ImageFile

y, x = np.mgrid[:240, :320]
picture = np.stack([x % 200, y, (x + y) % 120], -1).astype(np.uint8)
buffer = io.BytesIO()
Image.fromarray(picture).save(buffer, "JPEG", quality=90)
whole = buffer.getvalue()
cut = whole[: len(whole) * 9 // 10].rstrip(b"\xff") + b"\xff\xd9"

assert not ImageFile.LOAD_TRUNCATED_IMAGES
for name, pixels in (
    ("Pillow", np.asarray(Image.open(io.BytesIO(cut)))),
    ("imagecodecs", imagecodecs.jpeg8_decode(cut)),
):
    grey = (pixels == 128).all((1, 2)).mean()
    print(f"{name}: no error, no warning; {100 * grey:.0f} % of the rows are grey")
    assert grey > 0.03
try:
    np.asarray(Image.open(io.BytesIO(whole[:-2])))
except OSError as error:
    print(f"Pillow, all pixels there but no end marker: {error}")
else:
    raise SystemExit("Pillow reads a JPEG without its end marker now")
P
