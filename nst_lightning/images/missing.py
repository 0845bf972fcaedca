"""What to do about a picture that is not there: most often its name is nearly that of one that is."""

from __future__ import annotations

import difflib
import glob
import re
from pathlib import Path


def advice(path: Path) -> str:
    """What to type instead of the name of a file that does not exist."""
    name = str(path)  # in which pathlib leaves one slash of ``https://``
    near = None if "*" in name else _near(path)
    if near is not None:
        return f"did you mean {near}?"
    address = re.match(r"(https?|ftp|s3|gs|file):/+(.+)", name)
    if address:
        scheme, rest = address.groups()
        fetch = f"fetch it first, with curl -O '{scheme}://{rest}', and give the file: {rest.rpartition('/')[2]}"
        return f"leave the scheme out: /{rest}" if scheme == "file" else fetch
    if any(character in name for character in "*?["):
        found = sorted(glob.glob(name))  # noqa: PTH207 - a pattern with folders
        return f"the shell did not expand the pattern; give one file{f', such as {found[0]}' if found else ''}"
    if "\\" in name and "/" not in name:
        drive, _, rest = name.replace("\\", "/").rpartition(":")
        return f"paths have slashes here; did you mean {f'/mnt/{drive.lower()}{rest}' if drive else rest}?"
    return "check the path"


def _near(path: Path) -> Path | None:
    """The file with the nearest name: other case, other suffix, a space too many, a letter."""
    try:
        names = [file.name for file in path.parent.iterdir() if file.is_file()]
    except OSError:
        return None
    wanted = path.name.strip().lower()
    for same in (
        lambda name: name.lower() == wanted,
        lambda name: Path(name.lower()).stem == Path(wanted).stem,
        lambda name: name in difflib.get_close_matches(path.name, names, n=1, cutoff=0.75),
    ):
        found = next(filter(same, sorted(names)), None)
        if found is not None:
            return path.parent / found
    return None
