"""The one exception that the command line turns into a single line and exit code 2."""


class UserError(Exception):
    """Something the user asked for cannot be done; the message is one line that says how to mend it.

    A message names the argument, the requirement, the value received and what to do, in this order, for
    example ``data.size: must be at least 16 px, got 4; choose a larger size``.

    It is no ValueError, since parsers that try several types take a ValueError for "not this type".
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
