"""What the subcommands with a few options share: mistakes in one line, and an end without a word behind a pipe."""

from __future__ import annotations

import argparse
import signal
from typing import NoReturn

from nst_lightning.errors import UserError
from nst_lightning.process.ownership import owns_process


class PlainParser(argparse.ArgumentParser):
    """A parser whose complaints are a `UserError` each."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where the options are listed."""
        raise UserError(f"{message}; {self.prog} --help lists the options")


def end_with_the_reader() -> None:
    """End without a word where ``head`` or ``less`` has read enough, if the process is the command's own."""
    if owns_process() and hasattr(signal, "SIGPIPE"):  # which Windows lacks
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
