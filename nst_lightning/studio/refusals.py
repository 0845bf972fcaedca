"""What the server answers where it cannot do what is asked: a line for people, and the field that it is about."""

from __future__ import annotations

import re

from nst_lightning.errors import UserError

_FIELDS = {  # names of options, and the fields of a request that they come from
    "--config": "preset",
    "data.size": "size",
    "data.content": "content",
    "data.content_mask": "content_mask",
    "data.color": "keep_colors",
    "data.regions": "regions",
    "model.strength": "strength",
    "model.likeness": "likeness",
    "model.evaluations": "evaluations",
    "seed_everything": "seed",
}
_OWN = {
    *("content", "styles", "preset", "size", "strength", "likeness", "stroke_size", "protect_faces", "regions"),
    *("evaluations", "seconds", "seed", "file"),
}
_ABOUT_FACES = "data.content_mask: faces "
_NAMED = re.compile(r"([\w.-]+)(?:\[(\d+)\])?(?:\.(\w+))?[ :(]")


class RefusedError(UserError):
    """A request that is refused.

    Args:
        message: As for `UserError`.
        status: Of the answer.
        field: What of the request it is about; by default what the message begins with.
    """

    def __init__(self, message: str, status: int = 422, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field if field is not None else field_of(str(self))


class UnknownError(RefusedError):
    """Something that is not there, or not any more."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}: must be one that is there, got none of that name; {advice}", 404, what)


def field_of(line: str) -> str | None:
    """The field of a request that a line of the product's is about; None if it is about none."""
    found = _NAMED.match(line)
    if found is None:
        return None
    name = found[1]
    if line.startswith(_ABOUT_FACES):
        return "protect_faces"
    if name == "data.style" or name.startswith("data.style."):  # data.style_size is another option
        return "styles"
    if name in _FIELDS or name in _OWN:
        return _FIELDS.get(name, name)
    return f"options.{name}" if name.startswith(("data.", "model.", "trainer.")) else None
