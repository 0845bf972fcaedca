"""Which pictures are meant by folders, patterns and files."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nst_lightning.demo import locate
from nst_lightning.errors import UserError, notice
from nst_lightning.images import check_image, read_metadata
from nst_lightning.images.missing import advice
from nst_lightning.runs.overwriting import FINGERPRINT

_NAMED = 5  # files that a warning names
_MANIFESTS = {".csv", ".tsv", ".yaml", ".yml", ".json"}


def find_pictures(given: Sequence[str | os.PathLike[str]], argument: str, output: Path) -> list[str]:
    """Paths of the pictures that are meant, each once, in the order given and by name within a folder or pattern.

    A folder stands for the pictures in it, not for those in its folders. Of folders and patterns what is no picture is
    left out with a warning, hidden files without one, and so are pictures in the gallery's own folder that this program
    has made.

    Args:
        given: Folders, patterns with ``*``, ``?``, ``[]`` or ``**``, and files.
        argument: Which argument gave them, for messages.
        output: The gallery's folder.

    Raises:
        UserError: If something is not there, or holds no pictures.

    Warns:
        UserNotice: Files are left out.
    """
    found: dict[str, str] = {}
    for item in given:
        for path in _pictures(os.fspath(item), argument, output):
            found.setdefault(os.path.realpath(path), path)
    if not found:
        raise UserError(f"{argument}: must name at least one picture, got nothing; give a folder, a pattern or files")
    return list(found.values())


def _pictures(text: str, argument: str, output: Path) -> list[str]:
    if text == "-":
        raise UserError(
            f"{argument}: must be folders, patterns or files, got '-'; standard input holds one picture, which nst "
            "stylize reads"
        )
    path = locate(text, argument)
    try:
        if path.is_dir():
            return _in_folder(path, argument, output)
        if not path.exists():
            return _of_pattern(path, argument, output)
    except ValueError:  # a NUL, which no name can have
        raise UserError(f"{argument}: must be folders, patterns or files, got {text!r}; mend the name") from None
    if path.suffix.lower() in _MANIFESTS:
        raise UserError(f"{argument}: must be pictures, got '{path}'; give a list of rows as --manifest {path}")
    return [str(path)]


def _in_folder(folder: Path, argument: str, output: Path) -> list[str]:
    try:
        files = [path for path in sorted(folder.iterdir(), key=_by_name) if not path.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{argument}: cannot look into '{folder}': {error.strerror}; make it readable") from None
    found = _only_pictures([path for path in files if not path.is_dir()], argument, f"in '{folder}'", output)
    if found:
        return found
    below = next((path for path in files if path.is_dir() and any(map(_is_picture, _files(path)))), None)
    hint = f"its folders do; give '{folder}/*/*' in quotation marks" if below else "give another"
    raise UserError(
        f"{argument}: must be a folder that holds pictures, got the folder '{folder}', which holds none; {hint}"
    )


def _of_pattern(path: Path, argument: str, output: Path) -> list[str]:
    text = str(path)
    if not glob.has_magic(text):
        raise UserError(f"{argument}: must be there, got '{path}', which does not exist; {advice(path)}")
    files = [Path(name) for name in glob.glob(text, recursive=True)]  # noqa: PTH207 - a pattern with folders
    files = sorted((file for file in files if not file.is_dir()), key=lambda file: (file.parent, _by_name(file)))
    found = _only_pictures(files, argument, f"of those that '{path}' matches", output)
    if found:
        return found
    what = "none of which is a picture" if files else "which matches no file"
    root = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
    hint = "look at its spelling" if root.is_dir() else f"there is no folder '{root}'"
    raise UserError(f"{argument}: must match at least one picture, got the pattern '{path}', {what}; {hint}")


def _only_pictures(files: Sequence[Path], argument: str, where: str, output: Path) -> list[str]:
    """Leave out what is no picture, and what is a result."""
    inside = Path(os.path.realpath(output))
    files = [path for path in files if not _is_result(path, inside)]
    found = [path for path in files if _is_picture(path)]
    others = [path.name for path in files if path not in set(found)]
    if others:
        names = ", ".join(others[:_NAMED]) + (f" and {len(others) - _NAMED} more" if len(others) > _NAMED else "")
        count = "a file" if len(others) == 1 else f"{len(others)} files"
        notice(f"{argument}: left out {count} {where} that cannot be read as a picture: {names}", stacklevel=1)
    return [str(path) for path in found]


def _is_picture(path: Path) -> bool:
    """Whether the head of a file is a picture's."""
    try:
        check_image(path)
    except UserError:
        return False
    return True


def _is_result(path: Path, output: Path) -> bool:
    """Whether a file lies in the gallery's folder because a gallery, or another run, has put it there."""
    real = Path(os.path.realpath(path))
    if output not in real.parents:
        return False
    if real.suffix == ".html" or any(part.startswith(".") for part in real.relative_to(output).parts):
        return True
    try:
        return FINGERPRINT in read_metadata(path)
    except UserError:
        return False


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError:
        return


_by_name: Callable[[Path], tuple[str, str]] = lambda path: (path.name.casefold(), path.name)  # noqa: E731
