#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93: are the face cascades where cv2.data.haarcascades says?
# Expected: as in all of 4, haarcascade_frontalface_default.xml lies in that folder, and cv2.CascadeClassifier loads it,
# so that a program that finds faces needs no download; or the folder's name is gone with the cascades.
# Seen: the name is still there and the folder holds no cascade; CascadeClassifier is gone, and FaceDetectorYN, which is
# there, has no model in the package. In 4.14.0.94 both are as expected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for version in 4.14.0.94 5.0.0.93; do
    python3 -m venv "v$version"
    "v$version/bin/pip" install -q --disable-pip-version-check "opencv-python-headless==$version"
    "v$version/bin/python" - > "$version" <<'P'
from pathlib import Path

import cv2

place = Path(cv2.data.haarcascades)
cascades = sorted(path.name for path in place.glob("*.xml"))
models = [path.name for path in Path(cv2.__file__).parent.rglob("*.onnx")]
loads = hasattr(cv2, "CascadeClassifier") and not cv2.CascadeClassifier(str(place / cascades[0])).empty()
print(place.is_dir(), bool(cascades), loads, hasattr(cv2, "FaceDetectorYN"), models)
P
    echo "$version folder, cascades in it, loaded, FaceDetectorYN, models: $(cat "$version")"
done
[ "$(cat 4.14.0.94)" = "True True True True []" ] && [ "$(cat 5.0.0.93)" = "True False False True []" ]
