"""What the public packages export is what `public_api.txt` lists; a change of it is a change for users.

``python tests/test_public_api.py`` writes the list anew, from this file's folder or any other.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

LIST = Path(__file__).with_name("public_api.txt")
PACKAGES = ["", ".losses", ".features", ".optim", ".callbacks", ".images", ".session", ".gallery"]


def public_api() -> str:
    """Names in `__all__` of each public package, with signatures.

    Of classes their public members, too, but for those that Lightning and torch name.
    """
    lines = []
    for package in PACKAGES:
        module = importlib.import_module(f"nst_lightning{package}")
        lines.append(f"[{module.__name__}]")
        for name in sorted(module.__all__):
            lines += _described(name, getattr(module, name))
        lines.append("")
    return "\n".join(lines)


def _described(name: str, thing: object) -> Iterator[str]:
    if not callable(thing):
        yield f"{name}: {type(thing).__name__}"
        return
    yield f"{name}{_signature(thing)}"
    if not inspect.isclass(thing) or not _is_ours(thing):
        return
    others = [base for base in thing.__mro__ if not _is_ours(base)]
    for member, value in sorted(vars(thing).items()):
        if member.startswith("_") or any(hasattr(base, member) for base in others):
            continue
        if isinstance(value, property):
            yield f"    {name}.{member}: property"
        elif callable(value) or isinstance(value, (classmethod, staticmethod)):
            yield f"    {name}.{member}{_signature(getattr(thing, member))}"


def _is_ours(thing: type) -> bool:
    return thing.__module__.startswith("nst_lightning")


def _signature(thing: object) -> str:
    """Names of arguments and their defaults; annotations, which versions of Python show differently, are left out."""
    try:
        signature = inspect.signature(thing)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a type such as dict[str, Tensor] has none
        return f" = {thing}"
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=signature.empty))
    return re.sub(r"<(?:class|function) '?(?:\w+\.)*(\w+)[^>]*>", r"\1", text)


def test_the_public_api_is_the_one_that_is_listed():
    listed, found = LIST.read_text(encoding="utf-8").splitlines(), public_api().splitlines()
    changes = list(difflib.unified_diff(listed, found, "listed", "found", n=1, lineterm=""))
    assert not changes, (
        "The public names or their signatures have changed:\n\n"
        + "\n".join(changes)
        + "\n\nIf that is meant, say it in CHANGELOG.md and renew the list: python tests/test_public_api.py"
    )


if __name__ == "__main__":
    LIST.write_text(public_api(), encoding="utf-8")


def test_the_typed_program_uses_every_public_name():
    program = LIST.with_name("typed_client.py").read_text(encoding="utf-8")
    names = {name for package in PACKAGES for name in importlib.import_module(f"nst_lightning{package}").__all__}
    assert {name for name in names if not re.search(rf"\b{name}\b", program)} == set()
