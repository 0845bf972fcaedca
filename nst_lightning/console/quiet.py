"""What Lightning says: what a user asked it to say is passed on, its hints for other programs are not."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator

from tqdm import tqdm

from nst_lightning.console import log

_LOGGERS = ("lightning.pytorch", "lightning.fabric")

# Files of Lightning that speak only when asked to: reports, and what a callback with `verbose` does.
_REPORTS = ("/profilers/", "/callbacks/model_summary.py")
_VERBOSE = ("/callbacks/early_stopping.py", "/callbacks/model_checkpoint.py", "/callbacks/timer.py")
_FAST_DEV_RUN = "_init_debugging_flags"  # the function that says what the flag does

# Modules whose warnings are about a part that the user chose.
_CONCERNING = (
    r"lightning\.pytorch\.(callbacks\.(early_stopping|lr_monitor|device_stats_monitor|timer|weight_averaging)|"
    r"loggers\.|profilers\.)"
)


class _Passed(logging.Handler):
    """Prints what was asked for, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record that is to be passed on; see logging.Handler."""
        report, warns = _comes_from(record, _REPORTS), record.levelno >= logging.WARNING
        if warns or report or _comes_from(record, _VERBOSE) or record.funcName == _FAST_DEV_RUN:
            with tqdm.external_write_mode(sys.stderr):
                event = "warning" if warns else "message"
                log.say(event, self.format(record).strip(), asked=report, logger=record.name)


def _comes_from(record: logging.LogRecord, files: tuple[str, ...]) -> bool:
    path = record.pathname.replace("\\", "/")
    return any(part in path for part in files)


@contextlib.contextmanager
def lightning_quiet() -> Iterator[None]:
    """Keep Lightning's hints and warnings back; they are about its other users' programs.

    What a user asked for is said on standard error: profilers' reports, the model's summary, verbose callbacks, and why
    a Timer ends a run. Loggers are afterwards as they were.
    """
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        for name in _LOGGERS:
            stack.enter_context(_speaking_through(logging.getLogger(name), _Passed()))
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.filterwarnings("default", module=_CONCERNING)
        yield


@contextlib.contextmanager
def _speaking_through(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
