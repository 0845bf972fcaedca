"""From what was asked for to the words of ``nst fit``, with the server's files or with the names that people know."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nst_lightning.config.presets import preset_names
from nst_lightning.config.short import Short, takes_weight
from nst_lightning.studio.asked import Asked
from nst_lightning.studio.configuration import BEGINNING
from nst_lightning.studio.limits import Limits
from nst_lightning.studio.options import check_options
from nst_lightning.studio.refusals import RefusedError
from nst_lightning.studio.uploads import Uploads

Name = Callable[[str], str]  # what stands for an image: a path, or a name


def check_asked(asked: Asked, uploads: Uploads, limits: Limits) -> None:
    """Refuse what cannot be made, before anything is built.

    Raises:
        RefusedError: With the field.
    """
    presets = [name for name in preset_names() if "/" not in name]
    if asked.preset not in presets:
        raise RefusedError(
            f"preset: must be one of {', '.join(presets)}, got '{asked.preset}'; choose one", field="preset"
        )
    if asked.size is not None and asked.size > limits.max_size:
        raise RefusedError(f"size: must be at most {limits.max_size} px here, got {asked.size}; choose a smaller one")
    if asked.protect_faces and asked.content_mask is not None:
        raise RefusedError(
            "protect_faces: must be false beside a content_mask, which says what stays clear, got true; leave one out"
        )
    if asked.seconds is not None and asked.evaluations is not None:
        raise RefusedError(
            f"seconds: must be null beside evaluations, got {asked.seconds:g} and {asked.evaluations}; leave one out",
            field="seconds",
        )
    for image in asked.images:
        uploads.path(image)
    check_options(asked.options)


def arguments(asked: Asked, name: Name) -> list[str]:
    """The command line after ``nst fit``.

    Args:
        asked: What is asked for.
        name: Gives the path of an image.

    Raises:
        UserError: If something is said twice.
    """
    content = None if asked.content is None else name(asked.content)
    return short_of(asked, name).arguments(content, _styles(asked, name))


def short_of(asked: Asked, name: Name) -> Short:
    """In short words."""
    options: dict[str, Any] = dict(asked.options)
    if asked.evaluations is not None:
        options["model.evaluations"] = asked.evaluations
    if asked.content_mask is not None:
        options["data.content_mask"] = name(asked.content_mask)
    return Short(
        asked.preset,
        asked.size,
        asked.strength if asked.strength != 1 else None,
        asked.likeness,
        keep_colors=asked.keep_colors,
        protect_faces=asked.protect_faces,
        regions=asked.regions,
        stroke_size=asked.stroke_size if asked.stroke_size != 1 else None,
        seed=asked.seed,
        options=options,
    )


def _styles(asked: Asked, name: Name) -> list[str | Mapping[str, Any]]:
    items: list[str | Mapping[str, Any]] = []
    for style in asked.styles:
        item: dict[str, Any] = {"path": name(style.image)}
        if style.weight != 1 or len(asked.styles) > 1:
            item["weight"] = style.weight
        if style.mask is not None:
            item["mask"] = name(style.mask)
        items.append(item)
    return items


def names_of(asked: Asked, uploads: Uploads) -> dict[str, str]:
    """What each image is called in commands and configurations: two are never called the same."""
    found: dict[str, str] = {}
    for image in dict.fromkeys(asked.images):
        name = uploads.name(image)
        stem, suffix, number = Path(name).stem, Path(name).suffix, 1
        while name in found.values():
            number += 1
            name = f"{stem}_{number}{suffix}"
        found[image] = name
    return found


def command(asked: Asked, names: Mapping[str, str], more: Sequence[str] = ()) -> str:
    """The command line that repeats a picture, in short words where they can say it."""
    weighed = [names[style.image] for style in asked.styles if style.weight != 1]
    if (
        asked.content is None
        or any(style.mask is not None for style in asked.styles)
        or not all(map(takes_weight, weighed))
    ):
        return shlex.join(["nst", "fit", *arguments(asked, names.__getitem__), *more, "--output=picture.png"])
    words = ["nst", "stylize", names[asked.content]]
    words += [names[style.image] + (f":{_number(style.weight)}" if style.weight != 1 else "") for style in asked.styles]
    words += ["-o", "picture.png", "--preset", asked.preset]
    words += [] if asked.size is None else ["--size", str(asked.size)]
    words += [] if asked.strength == 1 else ["--strength", _number(asked.strength)]
    words += [] if asked.likeness is None else ["--likeness", _number(asked.likeness)]
    words += [] if asked.stroke_size == 1 else ["--stroke-size", _number(asked.stroke_size)]
    words += ["--keep-colors"] if asked.keep_colors else []
    words += ["--protect-faces"] if asked.protect_faces else []
    words += [] if asked.regions is None else ["--regions", str(asked.regions)]
    words += [] if asked.seed == 0 else ["--seed", str(asked.seed)]
    # The options, in YAML as the short words' own maker writes them.
    plain = Short("", options=short_of(asked, names.__getitem__).options).arguments(None, ["demo:style"])[1:]
    return shlex.join([*words, *plain, *more])


def plain_words(words: Sequence[str]) -> list[str]:
    """Options without the server's folders."""
    return [f"--data.init={BEGINNING}" if word.startswith("--data.init=") else word for word in words]


def _number(value: float) -> str:
    """In as few digits as give the same number again."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
