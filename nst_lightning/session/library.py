"""One call in Python."""

from nst_lightning.session.session import Session

stylize = Session(keep=False).stylize
