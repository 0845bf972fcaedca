"""What a checkpoint says of its run: the files that it is made from, and whether they are still the same."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nst_lightning.errors import UserError
from nst_lightning.files.digest import sha256_of
from nst_lightning.files.paths import absolute

CONTENT = "data.content"
_STYLE = "data.style[{}].path"
NETWORK = "model.extractor"


class InputFile(NamedTuple):
    """A file that a run reads."""

    given: str  # its path as it was given
    path: str  # the same, absolute
    sha256: str = ""  # of what it holds; empty in checkpoints of older versions

    def is_same(self, path: str) -> bool:
        """Whether a path leads to this file, or to what it was moved to, along with the folder that it was named from.

        A copy under another name is another picture.
        """
        found = os.path.realpath(path)
        if found == os.path.realpath(self.path):
            return True
        was_moved = not Path(self.path).exists() or found == os.path.realpath(self.given)
        return was_moved and bool(self.sha256) and Path(found).is_file() and sha256_of(found) == self.sha256


def make_facts(files: Mapping[str, str], networks: Sequence[str], evaluations: Sequence[int]) -> dict[str, Any]:
    """What a checkpoint says of its run, as plain data.

    That is of each picture and mask, of where each stage's weights come from (with the first digits of their SHA-256),
    and of its evaluations.
    """
    found = {argument: InputFile(path, absolute(path), sha256_of(path)) for argument, path in files.items()}
    for stage, origin in enumerate(networks, start=1):
        digits = re.search(r"sha256 (\w+)", origin)
        if digits:
            found[f"{NETWORK} of stage {stage}"] = InputFile(origin, "", digits.group(1))
    return {"files": {argument: list(file) for argument, file in found.items()}, "evaluations": list(evaluations)}


def files_of(facts: Mapping[str, Any]) -> dict[str, InputFile]:
    """The files that a checkpoint names, by argument; those of older versions name fewer."""
    if "files" in facts:
        return {argument: InputFile(*file) for argument, file in facts["files"].items()}
    content, styles = facts.get("content"), facts.get("styles", [])
    found = {} if content is None else {CONTENT: InputFile(content, content, facts.get("content_sha256", ""))}
    return found | {_STYLE.format(index): InputFile(style, style) for index, style in enumerate(styles)}


def styles_of(files: Mapping[str, InputFile]) -> list[InputFile]:
    """The style pictures among a checkpoint's files, in their order."""
    found: list[InputFile] = []
    while (file := files.get(_STYLE.format(len(found)))) is not None:
        found.append(file)
    return found


def check_files(checkpoint: Path, then: Mapping[str, Any], now: Mapping[str, Any], *, same_network: bool) -> None:
    """Refuse to go on with another file than the run was made from, be it that one path holds something else now.

    A mask, or a picture to begin with, that was added or left out on purpose is an option like any other. Weights have
    to be the same if the network is asked for as it was then.

    Raises:
        UserError: For the first file that is not the same.
    """
    before, ours = files_of(then), files_of(now)
    for argument in dict.fromkeys([*before, *ours]):
        old, new = before.get(argument), ours.get(argument)
        if argument.startswith(NETWORK) and not same_network:
            continue
        if old is None or new is None:
            if argument != CONTENT and not argument.endswith("].path"):
                continue
        elif not (old.sha256 and new.sha256) or old.sha256 == new.sha256:
            continue
        raise UserError(
            f"{argument}: '{checkpoint}' was made of {_named(old)}, got {_named(new)}; give the same file, or start "
            "anew, from the picture so far with data.init"
        )


def _named(file: InputFile | None) -> str:
    if file is None:
        return "none"
    return file.given if file.sha256 in file.given else f"{file.given} (sha256 {file.sha256[:8]})"
