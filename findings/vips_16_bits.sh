#!/usr/bin/env bash
# libvips 8.18.7 (pyvips 3.2.0), colourspace: how do the 256 levels of 8 bits lie in 16 bits?
# Expected: 257 apart, as 65535 / 255 is (or 256 apart, shifted), in even steps either way.
# Seen: even levels are shifted, odd ones have all lower bits set as well. Steps are 511 and 1 in turn: 127 and 128 come
# as 32767 and 32768, so that a smooth ramp of 8 bits is a staircase of 128 steps in 16. Black and white are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check pyvips==3.2.0 pyvips-binary==8.18.7 numpy
v/bin/python - <<'P'
import sys

import numpy as np
import pyvips

levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
ramp = pyvips.Image.new_from_array(levels, interpretation="srgb").colourspace("rgb16").numpy()[..., 0].ravel()
steps = np.diff(ramp.astype(int))
print("libvips", *(pyvips.version(part) for part in range(3)), "levels 0 to 3 and 126 to 129:", ramp[:4], ramp[126:130])
print("steps between neighbours:", sorted(set(steps.tolist())), "and from end to end:", int(ramp[0]), int(ramp[255]))
expected = np.arange(256) * 257
print("furthest from level * 257:", int(abs(ramp - expected).max()), "of 65535")
sys.exit(not (set(steps.tolist()) == {1, 511} and ramp[0] == 0 and ramp[255] == 65535))
P
