"""What comes in over HTTP, and what is made of it for the command."""

from __future__ import annotations

import json
import shlex

import pytest

from nst_lightning.cli import stylize
from nst_lightning.session import Session

pydantic = pytest.importorskip("pydantic")

from nst_lightning.studio.asked import Asked  # noqa: E402
from nst_lightning.studio.invalid import line_of  # noqa: E402
from nst_lightning.studio.recipe import arguments, command  # noqa: E402
from nst_lightning.studio.refusals import field_of  # noqa: E402
from nst_lightning.studio.workshop import device_words  # noqa: E402

STYLES = [{"image": "demo:style"}]
SCAN = "0123456789abcdef"  # an upload


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
        ({"likeness": 1.5}, "likeness: must be at most 1, got 1.5; see", "likeness"),
        ({"regions": 9}, "regions: must be at most 8, got 9; see", "regions"),
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


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("data.style: must name at least one picture", "styles"),
        ("data.style[0].path: must name a picture", "styles"),
        ("data.style.layer: must be one of path", "styles"),
        ("data.style_size: must be at least 16 px", "options.data.style_size"),
        ("data.style_follows: must be true or false", "options.data.style_follows"),
    ],
)
def test_a_line_is_about_its_field(line, field):
    assert field_of(line) == field


def test_a_device_in_the_words_of_the_command():
    assert device_words("cpu") == ["--trainer.accelerator=cpu"]
    assert device_words("cuda:1") == ["--trainer.accelerator=cuda", "--trainer.devices=[1]"]


class ToldError(Exception):
    """The command line of a run, before anything is made."""


class Told(Session):
    def run(self, args, **_):
        raise ToldError(args)


def test_a_weight_is_said_where_a_short_word_can_say_it():
    names = {"demo:content": "photo.jpg", "demo:style": "demo:style", SCAN: "scan"}
    styles = [{"image": "demo:style", "weight": 2}, {"image": SCAN}]
    asked = Asked(content="demo:content", styles=styles)
    shown = shlex.split(command(asked, names))
    assert shown[:5] == ["nst", "stylize", "photo.jpg", "demo:style:2", "scan"]
    given, others = stylize.split(shown[2:], stylize.parser())
    (style,) = (word for word in stylize.short_of(given, others).arguments("x", shown[3:5]) if "data.style" in word)
    assert json.loads(style.partition("=")[2]) == [{"path": "demo:style", "weight": 2.0}, {"path": "scan"}]
    heavy = Asked(content="demo:content", styles=[{"image": "demo:style"}, {"image": SCAN, "weight": 2}])
    assert shlex.split(command(heavy, names))[:2] == ["nst", "fit"]  # scan:2 might be a file's name


WISHES = {
    "strength": (4 / 3, ["--strength", "1.3333333333333333"]),
    "likeness": (0.8, ["--likeness", "0.8"]),
    "stroke_size": (1.5, ["--stroke-size", "1.5"]),
    "keep_colors": (True, ["--keep-colors"]),
    "protect_faces": (True, ["--protect-faces"]),
    "regions": (3, ["--regions", "3"]),
    "seed": (7, ["--seed", "7"]),
}


@pytest.mark.parametrize("name", WISHES)
def test_a_wish_over_http_is_that_of_the_command_and_of_python(name):
    value, words = WISHES[name]
    asked = Asked(content="demo:content", styles=STYLES, **{name: value})
    shown = shlex.split(command(asked, {"demo:content": "demo:content", "demo:style": "demo:style"}))
    assert words == shown[shown.index(words[0]) :][: len(words)]

    with pytest.raises(ToldError) as told:
        Told().stylize("demo:content", "demo:style", **{"seed": 0, name: value})
    given, others = stylize.split(shown[2:], stylize.parser())
    line = stylize.short_of(given, others).arguments("demo:content", ["demo:style"])
    http = arguments(asked, lambda image: image)
    assert set(told.value.args[0]) == set(http) == {*line, f"--seed_everything={asked.seed}"}
