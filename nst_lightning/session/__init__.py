"""Pictures from Python: one call, and a session for many."""

from nst_lightning.callbacks.feedback import Update
from nst_lightning.session.inputs import PictureLike as PictureLike
from nst_lightning.session.library import stylize
from nst_lightning.session.result import Outcome, Result
from nst_lightning.session.session import Session

__all__ = ["Outcome", "Result", "Session", "Update", "stylize"]
