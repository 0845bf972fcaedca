"""The examples in docstrings of public names run, and say what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import shutil
from types import FunctionType

import pytest
from PIL import Image

import nst_lightning.images
import nst_lightning.optim
import nst_lightning.session
from nst_lightning.features.weights import load_vgg19_weights

NAMES = ("callbacks", "features", "gallery", "images", "losses", "optim", "session")
PACKAGES = [importlib.import_module(f"nst_lightning.{name}") for name in NAMES]
PUBLIC = [getattr(package, name) for package in PACKAGES for name in package.__all__] + [load_vgg19_weights]
NEED_ONE = {
    *nst_lightning.images.__all__,
    *nst_lightning.optim.__all__,
    *("load_vgg19_weights", "Session", "Result", "Gallery", "Feedback", "Timelapse", "Preview", "Report"),
}


def examples_of(thing: type | FunctionType) -> list[doctest.DocTest]:
    variables = {**vars(inspect.getmodule(thing)), **vars(nst_lightning.session)}
    found = doctest.DocTestFinder().find(thing, thing.__name__, globs=variables)
    return [test for test in found if test.examples]


EXAMPLES = {
    thing.__name__: examples_of(thing) for thing in PUBLIC if inspect.isclass(thing) or inspect.isfunction(thing)
}


def test_all_that_need_an_example_have_one():
    assert {name for name, examples in EXAMPLES.items() if examples} >= NEED_ONE


@pytest.mark.parametrize("name", [name for name, examples in EXAMPLES.items() if examples])
def test_examples(place, name, capsys, pair):
    for file, picture in {"photo.jpg": pair[0], "painting.jpg": pair[1]}.items():
        Image.open(picture).save(file)
        (place / f"{file[:-4]}s").mkdir()
        shutil.copy(file, f"{file[:-4]}s")
    for example in EXAMPLES[name]:
        result = doctest.DocTestRunner().run(example, clear_globs=False)
        assert not result.failed, capsys.readouterr().out
