"""What a run leaves when it has come to its end, and whether it is there."""

from __future__ import annotations

import json
from pathlib import Path

from nst_lightning.runs.folder import RECORD


def is_written(folder: Path | None, output: Path | None = None) -> bool:
    """Whether a run whose last evaluation is made has also written its picture, its figure and how it ended.

    It may have been killed in between; then all of it can still be written, from the last checkpoint. A checkpoint may
    lie in no folder, and the picture is to be at `output` besides.
    """
    if folder is None or not any(folder.glob("result.*")) or (output is not None and not output.exists()):
        return False
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return bool(record.get("all_written", record["state"] != "running"))  # earlier versions had no such entry
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or not by us
        return True


def evaluations_of_finished(folder: Path) -> int | None:
    """How many evaluations a run has made, if these are all; None for any other."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        made = int(record["evaluations"])
        return made if record["state"] == "finished" and made >= int(record["of"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
