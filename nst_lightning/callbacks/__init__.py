"""Callbacks: one file, one duty each."""

from nst_lightning.callbacks.announce import Announce
from nst_lightning.callbacks.averaging import Averaging
from nst_lightning.callbacks.checkpoints import Checkpoints
from nst_lightning.callbacks.export import Export
from nst_lightning.callbacks.faults import Faults
from nst_lightning.callbacks.feedback import Feedback, Update
from nst_lightning.callbacks.figure import Figure
from nst_lightning.callbacks.metrics import Metrics
from nst_lightning.callbacks.preview import Preview
from nst_lightning.callbacks.progress import Progress
from nst_lightning.callbacks.record import Record
from nst_lightning.callbacks.report import Report
from nst_lightning.callbacks.signals import Signals
from nst_lightning.callbacks.snapshots import Snapshots
from nst_lightning.callbacks.timelapse import Timelapse
from nst_lightning.callbacks.watch import Watch
from nst_lightning.engine.loggers import Logs

__all__ = [
    "Announce",
    "Averaging",
    "Checkpoints",
    "Export",
    "Faults",
    "Feedback",
    "Figure",
    "Logs",
    "Metrics",
    "Preview",
    "Progress",
    "Record",
    "Report",
    "Signals",
    "Snapshots",
    "Timelapse",
    "Update",
    "Watch",
]
