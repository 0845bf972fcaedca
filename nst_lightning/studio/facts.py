"""What the page has to know before anything is asked for."""

from __future__ import annotations

from typing import Any

import torch
import yaml

from nst_lightning import __version__
from nst_lightning.config.presets import read_presets
from nst_lightning.errors import UserError
from nst_lightning.faces import check_weights
from nst_lightning.features.weights import vgg19_source
from nst_lightning.hardware.accelerator import choose_precision, describe
from nst_lightning.objective.likeness import NEUTRAL
from nst_lightning.objective.regions import MOST
from nst_lightning.studio.downloads import TYPES
from nst_lightning.studio.limits import Limits

_STYLES = [
    {"id": "demo:style", "title": "Painted sky", "artist": "this project", "licence": "MIT", "source": "the package"},
]
_CONTENTS = [
    {
        "id": "demo:content",
        "title": "Espresso in a red cup",
        "artist": "Rachel Michetti, courtesy of Pikolo Espresso Bar",
        "licence": "CC0",
        "source": "scikit-image",
    },
]


def facts(device: str, limits: Limits) -> dict[str, Any]:
    """Version, device, presets, whether faces are found, pictures of the package, limits and formats."""
    hardware = describe(torch.device(device))
    precision = choose_precision("auto", hardware)
    return {
        "version": __version__,
        "device": {
            "accelerator": hardware.accelerator,
            "name": hardware.name,
            "precision": precision.value,
            "reason": precision.reason,
            "memory": hardware.memory,
        },
        "presets": _presets(),
        "faces": _faces(),
        "styles": _STYLES,
        "contents": _CONTENTS,
        "limits": {
            "megabytes": limits.megabytes,
            "megapixels": limits.megapixels,
            "max_size": limits.max_size,
            "keep_hours": limits.keep_hours,
            "regions": MOST,
        },
        "formats": list(TYPES),
    }


def _faces() -> dict[str, Any]:
    """Whether faces can be found here, and if not, why."""
    try:
        check_weights()
    except UserError as error:
        return {"can_be_found": False, "reason": str(error).partition(": faces ")[2]}
    return {"can_be_found": True, "reason": ""}


def _presets() -> list[dict[str, Any]]:
    source = vgg19_source()
    present = source.url is None
    found = []
    for preset in read_presets():
        if "/" in preset.name:
            continue
        tree = yaml.safe_load(preset.path.read_text(encoding="utf-8")) or {}
        model, data = tree.get("model") or {}, tree.get("data") or {}
        network = str(model.get("extractor") or "VGG19")
        needs = "Compact" not in network
        found.append(
            {
                "name": preset.name,
                "gives": preset.gives,
                "takes": preset.takes,
                "likeness": float(model.get("likeness", NEUTRAL)),
                "regions": int(data.get("regions", 0)),
                "needs_weights": needs,
                "weights_present": present or not needs,
            }
        )
    return found
