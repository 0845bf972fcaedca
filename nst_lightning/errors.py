"""What reaches the user as one line: errors, with exit code 2, and notices."""

import warnings


class UserError(Exception):
    """Something the user asked for cannot be done; the message is one line that says how to mend it.

    A message names the argument, the requirement, the value received and what to do, in this order, for
    example ``data.size: must be at least 16 px, got 4; choose a larger size``.

    It is no ValueError, since parsers that try several types take a ValueError for "not this type".
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class UserNotice(UserWarning):
    """Something the user should know while the run goes on; the command line prints it as one line."""


def notice(text: str, stacklevel: int = 2) -> None:
    """Give a `UserNotice`, as ``warnings.warn`` does where this is called; by default it is of the caller's caller."""
    warnings.warn(text, UserNotice, stacklevel=stacklevel + 1)


def check_at_least(argument: str, value: float, least: int, advice: str = "the default is a good start") -> None:
    """Refuse a number below the least that makes sense, and NaN.

    Raises:
        UserError: With both numbers, and the advice unless that is empty.
    """
    if not value >= least:
        raise UserError(f"{argument}: must be at least {least}, got {value}" + (f"; {advice}" if advice else ""))
