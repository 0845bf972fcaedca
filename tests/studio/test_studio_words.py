"""What comes in over HTTP, and what is made of it for the command."""

from __future__ import annotations

import pytest

pydantic = pytest.importorskip("pydantic")

from nst_lightning.studio.asked import Asked  # noqa: E402
from nst_lightning.studio.invalid import line_of  # noqa: E402
from nst_lightning.studio.workshop import device_words  # noqa: E402

STYLES = [{"image": "demo:style"}]


@pytest.mark.parametrize(
    ("given", "line", "field"),
    [
        ({"size": 4}, "size: must be at least 16, got 4; see", "size"),
        ({"size": "large"}, "size: must be a whole number, got large; see", "size"),
        ({"size": 32.5}, "size: must be a whole number, got 32.5; see", "size"),
        ({"strength": 0}, "strength: must be above 0, got 0; see", "strength"),
        ({"strength": "much"}, "strength: must be a number, got much; see", "strength"),
        ({"seconds": 1e6}, "seconds: must be at most 86400, got 1000000.0; see", "seconds"),
        ({"seed": 2**32}, "seed: must be below 4294967296, got 4294967296; see", "seed"),
        ({"keep_colors": "perhaps"}, "keep_colors: must be true or false, got perhaps; see", "keep_colors"),
        ({"content": "../../etc"}, "content: must be a name such as the server gives, got ../../etc; see", "content"),
        ({"output": "x.png"}, "output: is no field of this request, got x.png; see", "output"),
        ({"styles": []}, "styles: must have at least 1 of them, got something else; see", "styles"),
        ({"styles": [{}]}, "styles.0.image: must be given, got nothing; see", "styles.0.image"),
        ({"options": [1]}, "options: must be a mapping, got something else; see", "options"),
        ({"preset": "a b\n" * 30}, "preset: must be a name such as the server gives, got a b a b", "preset"),
    ],
)
def test_a_line_for_each(given, line, field):
    with pytest.raises(pydantic.ValidationError) as raised:
        Asked(**{"styles": STYLES, **given})
    found = line_of(raised.value.errors()[0])
    assert found[0].startswith(line)
    assert "\n" not in found[0]
    assert found[1] == field


def test_a_device_in_the_words_of_the_command():
    assert device_words("cpu") == ["--trainer.accelerator=cpu"]
    assert device_words("cuda:1") == ["--trainer.accelerator=cuda", "--trainer.devices=[1]"]
