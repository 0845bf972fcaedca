"""What is wrong with a field of a request, in the words that the rest of the program has for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By pydantic's names of errors (https://docs.pydantic.dev/latest/errors/validation_errors/), with its own figures.
_WORDS = {
    "missing": "must be given",
    "extra_forbidden": "is no field of this request",
    "greater_than": "must be above {gt:.12g}",
    "greater_than_equal": "must be at least {ge:.12g}",
    "less_than": "must be below {lt:.12g}",
    "less_than_equal": "must be at most {le:.12g}",
    "finite_number": "must be finite",
    "too_short": "must have at least {min_length} of them",
    "too_long": "must have at most {max_length} of them",
    "string_too_long": "must have at most {max_length} letters",
    "string_pattern_mismatch": "must be a name such as the server gives",
    "json_invalid": "must be JSON",
}
_KINDS = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be a text",
    "list": "must be a list",
    "dict": "must be a mapping",
    "model": "must be a mapping",
}
_LONGEST = 60  # letters of a value that are repeated


def line_of(error: Mapping[str, Any]) -> tuple[str, str]:
    """A line for an error of pydantic's, and the field that it is about, with dots."""
    where = [str(part) for part in error["loc"] if part not in {"body", "path", "query"}]
    field = ".".join(where)[:80] or "body"
    kind, context = str(error["type"]), error.get("ctx", {})
    words = _WORDS.get(kind) or _KINDS.get(kind.partition("_")[0])
    requirement = words.format(**context) if words is not None else str(error["msg"])[:200]
    given = error.get("input")
    got = "nothing" if kind == "missing" else "something else" if isinstance(given, (dict, list)) else str(given)
    return " ".join(f"{field}: {requirement}, got {got[:_LONGEST]}; see /api/openapi.json".split()), field
