"""Draw the demo's mask: cup and saucer of the content picture as two ellipses with soft edges.

python tools/draw_demo_mask.py OUTPUT
"""

from __future__ import annotations

import argparse

from PIL import Image, ImageDraw, ImageFilter

SIZE = (600, 400)  # width and height of the content picture
# Centre, half axes in pixels, turn in degrees.
SAUCER = ((278, 232), (206, 156), -12)
CUP = ((291, 150), (120, 136), 0)
SOFTNESS = 3  # pixels


def main() -> None:
    """Draw and save."""
    parser = argparse.ArgumentParser(description="Draw the demo's mask.")
    parser.add_argument("output")
    mask = Image.new("L", SIZE, 0)
    for (x, y), (a, b), turn in (SAUCER, CUP):
        one = Image.new("L", SIZE, 0)
        ImageDraw.Draw(one).ellipse((x - a, y - b, x + a, y + b), fill=255)
        one = one.rotate(turn, resample=Image.Resampling.BICUBIC, center=(x, y))
        mask.paste(255, mask=one)
    mask.filter(ImageFilter.GaussianBlur(SOFTNESS)).save(parser.parse_args().output, optimize=True)


if __name__ == "__main__":
    main()
