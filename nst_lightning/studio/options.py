"""Which options, and which of their values, may come from outside.

Nothing may name a file, a class that is not the product's own, or code: names are on a list, and texts are words of the
product's.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any, get_args

from nst_lightning import features, losses, optim
from nst_lightning.data.request import Color, Side, Start
from nst_lightning.features.compact import EMBEDDED
from nst_lightning.images.resize import Resample
from nst_lightning.losses.term import PIXEL_LAYERS
from nst_lightning.studio.refusals import RefusedError

_NAMES = re.compile(
    r"data\.(?:side|style_size|style_follows|init|seed|aspect|resample|color|content_floor|regions)"
    r"|model\.(?:likeness|terms|stages|tile|memory)"
    r"|model\.(?:extractor|draft|optimizer)(?:\.[a-z][a-z0-9_]{0,40})*"
    r"|trainer\.precision"
)
_TORCH = ("Adam", "AdamW", "NAdam", "RAdam", "SGD", "RMSprop", "Adagrad")  # optimisers that need nothing else
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,40}")
_LAYER = re.compile(r"(?:relu|conv)[1-5]_[1-4]|pool[1-5]")
_WORDS = frozenset(
    (
        *(get_args(Side) + get_args(Start) + get_args(Color) + get_args(Resample)),
        *EMBEDDED,  # encoders in the package
        *PIXEL_LAYERS,
        *("auto", "max", "average", "l2", "zeros", "replicate", "direct", "winograd", "stored", "normalised"),
        *("balanced", "released", "paper", "squared", "absolute", "nine_point", "dealt", "own", "all"),
        *("float32", "bfloat16", "torch", "any", "caffe", "torchvision"),
        *("32-true", "bf16-mixed", "64-true"),
    )
)
_DEEPEST, _MOST = 12, 2000  # levels and values; no wish comes near


def check_options(options: Mapping[str, Any]) -> None:
    """See to it that options of a client's are harmless.

    Raises:
        RefusedError: With the first that is not.
    """
    left = [_MOST]
    for name, value in options.items():
        if not _NAMES.fullmatch(name):
            raise RefusedError(
                f"options: must be settings of the model or the data that name no file, got {_shown(name)}; leave it "
                "out, or use nst fit",
                field=f"options.{name[:80]}",
            )
        _Check(name, left).value(value, name.rpartition(".")[2], 0)


class _Check:
    """A walk through the value of an option."""

    def __init__(self, name: str, left: list[int]) -> None:
        self._name, self._left = name, left

    def value(self, value: Any, key: str, depth: int) -> None:
        """Check a value that a key has."""
        self._left[0] -= 1
        if depth > _DEEPEST or self._left[0] < 0:
            self._refuse("must be a short value", "a very long one")
        if isinstance(value, Mapping):
            for inner, held in value.items():
                if not isinstance(inner, str) or not _KEY.fullmatch(inner) or inner == "dict_kwargs":
                    self._refuse("must have plain names as keys", inner)
                self.value(held, inner, depth + 1)
        elif isinstance(value, (list, tuple)):
            for held in value:
                self.value(held, key, depth + 1)
        elif isinstance(value, str):
            self._text(value, key, depth)
        elif isinstance(value, float) and not math.isfinite(value):
            self._refuse("must be finite", value)
        elif not isinstance(value, (bool, int, float, type(None))):
            self._refuse("must be a number, a word, a list or a mapping", type(value).__name__)

    def _text(self, text: str, key: str, depth: int) -> None:
        is_class = key == "class_path" or (key in {"extractor", "draft", "optimizer", "terms"})
        if is_class:
            if text not in _classes():
                self._refuse("must name a class of the product's own (losses, features, optim)", text)
        elif text not in _WORDS and not _LAYER.fullmatch(text):
            self._refuse("must be a word that the option knows, and no file", text)

    def _refuse(self, requirement: str, got: object) -> None:
        raise RefusedError(
            f"{self._name}: {requirement}, got {_shown(got)}; see nst fit --help all", field=f"options.{self._name}"
        )


def _classes() -> frozenset[str]:
    """Classes that may be named, with and without their package."""
    found = {f"torch.optim.{name}" for name in _TORCH}
    for package, base in ((losses, losses.Term), (features, features.Extractor), (optim, object)):
        for name in package.__all__:
            class_ = getattr(package, name)
            if inspect.isclass(class_) and issubclass(class_, base) and not inspect.isabstract(class_):
                found |= {name, f"{package.__name__}.{name}"}
    return frozenset(found | set(_TORCH))


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
