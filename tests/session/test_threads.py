"""A picture has the same bits whatever the number of threads that it is made with."""

from __future__ import annotations

import pytest
import torch
from painter import put_picture

from nst_lightning import stylize


@pytest.fixture
def pictures(place):
    """A photograph and two paintings."""
    for index, name in enumerate(("photo.png", "waves.png", "night.png")):
        put_picture(place / name, (60 * index, 200 - 40 * index, 90), (121 + 5 * index, 93))


def made(threads, size, **options):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        styles = [{"path": "waves.png", "scale": 1.5}, ("night.png", 2.0)]
        result = stylize("photo.png", styles, size=size, evaluations=8, **options)
    finally:
        torch.set_num_threads(before)
    return result.image, result.losses


@pytest.mark.filterwarnings("ignore::nst_lightning.errors.UserNotice")  # about the weights
@pytest.mark.parametrize(
    ("size", "preset", "precision"),
    [
        (118, "fast", "bf16-mixed"),
        (118, "quickstart", "bf16-mixed"),
        (118, "fast", "32-true"),
        (118, "gatys", "32-true"),
        (118, "portrait", "32-true"),
        (45, "fast", "32-true"),  # of few cells at the deepest layers; no stride divides either size
    ],
)
def test_pixels_and_losses(pictures, size, preset, precision):
    options = {"size": size, "preset": preset, "precision": precision}
    if preset in ("gatys", "portrait"):
        options |= {"model.extractor": "CompactVGG19", "model.draft": None}
    if preset == "quickstart":
        options["model.stages"] = [{"evaluations": 4, "scale": 0.8}, {"evaluations": 4}]
    one, other = (made(threads, **options) for threads in (1, 3))
    assert one[1] == other[1]
    assert one[0].tobytes() == other[0].tobytes()
