"""What clients see of a picture."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

from nst_lightning.studio.records import UNDER_WAY, Record
from nst_lightning.studio.refusals import UnknownError
from nst_lightning.studio.shelf import Shelf
from nst_lightning.studio.uploads import DEMO, Uploads


class Views:
    """Pictures as JSON.

    Args:
        shelf: The pictures.
        uploads: What they are made of.
    """

    def __init__(self, shelf: Shelf, uploads: Uploads) -> None:
        self._shelf, self._uploads = shelf, uploads
        self._texts: dict[str, tuple[int, str]] = {}  # with their revisions: many clients are told the same

    def names(self) -> list[str]:
        """All pictures, the oldest first."""
        return [record.id for record in reversed(self._shelf.all())]

    def text(self, name: str) -> str | None:
        """A picture as JSON text; None if it is gone."""
        revision = self._shelf.revision(name)
        known = self._texts.get(name)
        if known is not None and known[0] == revision:
            return known[1]
        try:
            text = json.dumps(self.picture(self._shelf.get(name)))
        except UnknownError:
            self._texts.pop(name, None)
            return None
        self._texts[name] = revision, text
        return text

    def picture(self, record: Record) -> dict[str, Any]:
        """A picture."""
        growth, place = self._shelf.growth(record.id), self._shelf.place(record.id)
        here = f"/api/pictures/{record.id}"
        under_way, has_result = record.status in UNDER_WAY, place.fine.is_file() and place.result.is_file()
        goes_on = record.status in {"stopped", "finished"} or (record.status == "failed" and place.goes_on)
        left = growth.seconds_left if record.status == "running" else None
        return {
            "id": record.id,
            "status": record.status,
            "place": self._place_of(record),
            "evaluation": record.evaluation,
            "evaluations": record.evaluations,
            "loss": _finite(record.loss),
            "seconds": round(record.seconds, 2),
            "seconds_left": None if left is None else round(left, 1),
            "width": record.width,
            "height": record.height,
            "preview": f"{here}/preview?v={growth.version}" if growth.preview is not None else None,
            "result": f"{here}/result" if has_result else None,
            "parent": record.parent,
            "error": record.error,
            "asked": record.asked,
            "names": self._names_of(record),
            "plan": _short(record.plan),
            "created": record.created_iso,
            "device": record.device,
            "can": {
                "stop": record.status in {"queued", "running"},
                "continue": goes_on,
                "larger": has_result and not under_way,
                "download": has_result,
                "remove": True,
            },
        }

    def _names_of(self, record: Record) -> dict[str, str]:
        """What the uploads of a picture are called; those that are gone are left out."""
        images = [record.asked.get("content"), *(style["image"] for style in record.asked.get("styles", []))]
        found = {}
        for image in images:
            if image is not None and image not in DEMO:
                with contextlib.suppress(UnknownError):
                    found[image] = self._uploads.name(image)
        return found

    def _place_of(self, record: Record) -> int | None:
        if record.status != "queued":
            return None
        waiting = [other.id for other in self._shelf.with_status("queued")]
        return 1 + waiting.index(record.id) if record.id in waiting else None


def _short(plan: dict[str, Any] | None) -> dict[str, Any] | None:
    """A plan without the long text, which has an address of its own."""
    return None if plan is None else {name: value for name, value in plan.items() if name != "configuration"}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
