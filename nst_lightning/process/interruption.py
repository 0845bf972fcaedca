"""What a signal that ends a run means to the program around it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException


def hand_on(number: int, handler: Any) -> None:
    """Answer a signal as the program around a run would have, now that the run has done its part.

    Args:
        number: The signal.
        handler: The program's own handler, as ``signal.getsignal`` gives it.

    Raises:
        KeyboardInterrupt: For Ctrl-C, unless the program has a handler that does something else.
        SystemExit: For other signals that nobody handles, with 128 + number: it ends the program in good order.
    """
    if callable(handler):
        handler(number, None)
    elif number == signal.SIGINT:
        raise KeyboardInterrupt
    elif handler != signal.SIG_IGN:
        raise SystemExit(128 + number)


@contextlib.contextmanager
def signals_as_before() -> Iterator[None]:
    """Leave the handlers of signals as they were, however Lightning's fit ends, and let its end say what it was.

    Lightning restores them, too, but not if a callback fails while it deals with an exception, and it ignores Ctrl-C
    for ever if one came before the first evaluation. It makes exit code 1 of Ctrl-C, and 0 of SIGTERM.

    Raises:
        KeyboardInterrupt: Where Lightning exits for one.
        SystemExit: With 143 where it exits for SIGTERM.
    """
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():  # no other may set any
            for number, handler in before.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
