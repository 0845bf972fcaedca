"""Many pictures: every content in every style, in one folder with a contact sheet."""

from nst_lightning.gallery.engine import Engine, Made, Step
from nst_lightning.gallery.gallery import Event, Gallery, Summary
from nst_lightning.gallery.judging import Task
from nst_lightning.gallery.local_engine import LocalEngine
from nst_lightning.gallery.ray_engine import RayEngine
from nst_lightning.gallery.rows import Row, StyleFile

__all__ = [
    "Engine",
    "Event",
    "Gallery",
    "LocalEngine",
    "Made",
    "RayEngine",
    "Row",
    "Step",
    "StyleFile",
    "Summary",
    "Task",
]
