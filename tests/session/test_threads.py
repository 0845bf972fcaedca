"""A picture has the same bits whatever the number of threads that it is made with."""

from __future__ import annotations

import pytest
import torch
from painter import put_picture

from nst_lightning import stylize


@pytest.fixture
def pictures(place, use_tiny_weights):
    """A photograph and two paintings."""
    for index, name in enumerate(("photo.png", "waves.png", "night.png")):
        put_picture(place / name, (60 * index, 200 - 40 * index, 90), (121 + 5 * index, 93))


def made(threads, size, **options):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        styles = [{"path": "waves.png", "scale": 1.5}, ("night.png", 2.0)]
        result = stylize("photo.png", styles, size=size, evaluations=12, **options)
    finally:
        torch.set_num_threads(before)
    return result.image, result.losses


@pytest.mark.filterwarnings("ignore::nst_lightning.errors.UserNotice")  # about the weights
@pytest.mark.parametrize("preset", ["fast", "quickstart", "painterly", "gatys"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
@pytest.mark.parametrize("size", [45, 118])  # of few cells at the deepest layers, and of more; no stride divides them
def test_pixels_and_losses(pictures, size, preset, precision):
    options = {"size": size, "preset": preset, "precision": precision}
    if preset == "quickstart":
        options["model.stages"] = [{"evaluations": 6, "scale": 0.8}, {"evaluations": 6}]
    one, two, three = (made(threads, **options) for threads in (1, 2, 3))
    assert one[1] == two[1] == three[1]
    assert one[0].tobytes() == two[0].tobytes() == three[0].tobytes()
