"""Pictures in a terminal that shows them: kitty's protocol, or sixel, which iTerm2, xterm, foot and others have."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from nst_lightning.console import log
from nst_lightning.console.bar import Bar, is_widget

if TYPE_CHECKING:
    from PIL.Image import Image

_WIDEST, _HIGHEST = 40, 16  # cells that a picture takes at most


class Screen:
    """A place above the progress bar where one picture takes the place of another."""

    def __init__(self, renderable: Any) -> None:
        from rich.console import Console  # noqa: PLC0415 - comes with what found the terminal out

        self._renderable, self._console = renderable, Console(file=sys.stderr, force_terminal=True)
        self._shown: Any = None
        self._rows = self._said = 0  # height of the picture that is there, and lines said before it was drawn

    def show(self, picture: Image) -> None:
        """Draw a picture in the place of the last one, or below what was said since."""
        columns, lines = shutil.get_terminal_size()
        width = max(1, min(_WIDEST, columns - 1))
        height = max(1, min(_HIGHEST, lines - 3, round(width * picture.height / picture.width / 2)))
        image = self._renderable(picture, width="auto", height=height)
        with Bar.external_write_mode(file=sys.stderr):
            if self._rows and self._said == log.said():
                sys.stderr.write(f"\x1b[{self._rows}A\r\x1b[J")
            self._rows, self._said = 0, log.said()
            self._console.print(image)
            self._rows = height
        if self._shown is not None:
            self._shown.cleanup()  # kitty keeps what it was sent
        self._shown = image


def open_screen() -> Screen | None:
    """A screen, where there is a terminal with a bar that shows pictures, and the package that asks it; else None.

    The terminal is asked and has a tenth of a second to answer. A program in the background does not ask, since one
    that reads from its terminal is stopped.
    """
    if log.kind() != "bar" or is_widget() or importlib.util.find_spec("textual_image") is None:
        return None
    with contextlib.suppress(Exception):  # a terminal that answers otherwise than it should shows none
        if _is_in_front():
            from textual_image import renderable  # noqa: PLC0415 - asks the terminal

            if renderable.Image in {renderable.SixelImage, renderable.TGPImage}:
                return Screen(renderable.Image)
    return None


def _is_in_front() -> bool:
    """Whether standard input, output and error are one terminal's, and this process is the one that it talks to."""
    streams = (sys.__stdin__, sys.__stdout__, sys.stderr)
    if any(stream is None or not stream.isatty() for stream in streams):
        return False
    return not hasattr(os, "tcgetpgrp") or os.tcgetpgrp(0) == os.getpgrp()
