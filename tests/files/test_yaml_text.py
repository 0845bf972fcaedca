"""Text in YAML is read as PyYAML's own loader reads it."""

from __future__ import annotations

import pytest
import yaml

from nst_lightning.config.presets import find_config, preset_names
from nst_lightning.files.yaml_text import load_yaml


@pytest.mark.parametrize("name", preset_names())
def test_presets(name):
    text = find_config(name).read_text(encoding="utf-8")
    assert load_yaml(text) == yaml.safe_load(text)


def test_what_configurations_hold():
    tree = {"a": ["é\U0001f600\u2028", "x" * 300, "1e3", 1e-7, None, True, "no", "", "a: b # c"], "b": {"c": [{}, []]}}
    text = yaml.safe_dump(tree, allow_unicode=True)
    assert load_yaml(text) == tree == yaml.safe_load(text)
