"""No lines of libraries on standard error: what they fail at is said in one line of our own."""

import contextlib
import ctypes
import functools
import importlib.util
import logging
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator

_lock = threading.Lock()
_inside = 0
_undo = contextlib.ExitStack()
_stderr = threading.Lock()
_NULL = ctypes.c_void_p(None)
_LIBRARIES = r"(PIL|tifffile|imagecodecs|rawpy|pillow_heif|pillow_jxl)\b"
_STDERR = 2


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence loggers, warnings and libtiff while pictures are decoded; in several threads until the last has ended.

    Notices of our own pass, since those of one thread must not be lost to another.
    """
    global _inside  # noqa: PLW0603 - what is silenced is the process's, too
    with _lock:
        _inside += 1
        if _inside == 1:
            _silence(_undo)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _undo.close()


def _silence(undo: contextlib.ExitStack) -> None:
    for logger in (logging.getLogger(name) for name in ("PIL", "tifffile")):
        undo.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL + 1)
    undo.enter_context(warnings.catch_warnings())
    for category in (RuntimeWarning, DeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    warnings.filterwarnings("ignore", module=_LIBRARIES)
    for set_handler in _libtiff():
        undo.callback(set_handler, set_handler(_NULL))


@functools.cache
def _libtiff() -> tuple[Callable[[ctypes.c_void_p], ctypes.c_void_p], ...]:
    """What sets the functions by which Pillow's libtiff prints errors and warnings, and returns the ones before.

    Pillow leaves them as they are, which is to print, and has no setting. They are found where they can be called by
    name; where Pillow has libtiff within itself (Windows), its lines remain.
    """
    found = []
    extension = importlib.util.find_spec("PIL._imaging")
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(extension.origin if extension else None)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            function = getattr(library, name)
            function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            found.append(function)
    return tuple(found)


@contextlib.contextmanager
def caught_lines(pattern: re.Pattern[str], lines: list[str]) -> Iterator[None]:
    """Keep lines of a C library off standard error, for one that can be neither told to be silent nor asked.

    This turns away the file descriptor, which is the whole process's: one thread at a time, for as short as can be.
    When the body has ended ``lines`` get those that match the pattern; whatever else was written is written there.
    """
    with _stderr, tempfile.TemporaryFile() as caught:
        try:
            saved = os.dup(_STDERR)
        except OSError:  # there is none
            yield
            return
        os.dup2(caught.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(saved, _STDERR)
            caught.seek(0)
            for line in caught:
                text = line.decode(errors="replace").rstrip("\n")
                if pattern.search(text):
                    lines.append(text)
                else:
                    os.write(saved, line)
            os.close(saved)
