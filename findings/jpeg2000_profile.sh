#!/usr/bin/env bash
# imagecodecs 2026.3.6, jpeg2k_decode: does it give the samples of a JP2 that has an ICC profile?
# Expected: yes. The function has no colour option, its documentation has no word on profiles, and its neighbours
# (png_decode, jpeg8_decode, webp_decode) give out samples as they are stored and leave profiles alone.
# Seen: they are converted to sRGB, so that whoever then applies the profile, too, has the colours wrong twice over; a
# grey picture with a profile comes with three channels. Pillow 13.0.0 gives the samples, and drops the profile.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check imagecodecs==2026.3.6 pillow==13.0.0 numpy
v/bin/python - <<'P'
import io
import struct
import sys

import imagecodecs
import numpy as np
from PIL import Image


def box(kind, data):
    return struct.pack(">I4s", 8 + len(data), kind) + data


def jp2(samples, colr):
    code = imagecodecs.jpeg2k_encode(samples, level=0, reversible=True, codecformat="j2k")
    channels = samples.shape[2] if samples.ndim == 3 else 1
    ihdr = box(b"ihdr", struct.pack(">IIHBBBB", *samples.shape[:2], channels, 7, 7, 0, 0))
    head = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return head + box(b"jp2h", ihdr + box(b"colr", colr)) + box(b"jp2c", code)


samples = np.tile(np.array([64, 191, 64], np.uint8), (16, 16, 1))
srgb = b"\1\0\0" + struct.pack(">I", 16)
adobe = b"\2\0\0" + bytes(imagecodecs.cms_profile("adobergb"))
plain = imagecodecs.jpeg2k_decode(jp2(samples, srgb))[0, 0].tolist()
profiled = imagecodecs.jpeg2k_decode(jp2(samples, adobe))[0, 0].tolist()
pillow = np.asarray(Image.open(io.BytesIO(jp2(samples, adobe))))[0, 0].tolist()
print("imagecodecs", imagecodecs.__version__, "stored", samples[0, 0].tolist(), "without a profile", plain)
print("with Adobe RGB's profile", profiled, "and by Pillow", pillow)
grey = b"\2\0\0" + bytes(imagecodecs.cms_profile("gray", whitepoint=(0.3457, 0.3585, 1.0), gamma=1.0))
shape = imagecodecs.jpeg2k_decode(jp2(np.full((16, 16), 64, np.uint8), grey)).shape
print("a grey picture with a profile has the shape", shape)
sys.exit(not (plain == pillow == samples[0, 0].tolist() and profiled == [0, 192, 46] and shape == (16, 16, 3)))
P
