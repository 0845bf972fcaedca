"""Imports without the search for garbage, in the command's own process alone."""

from __future__ import annotations

import gc
import sys

import pytest

from nst_lightning.process import ownership
from nst_lightning.process.loading import load


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that keeps whether garbage was searched for while it was imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "looks_at_gc", raising=False)
    (tmp_path / "looks_at_gc.py").write_text("import gc\nsearched = gc.isenabled()\nkept = [[]]\n", encoding="utf-8")
    return "looks_at_gc"


@pytest.fixture(autouse=True)
def unfrozen():
    """What a test sets aside is searched again."""
    yield
    gc.unfreeze()


@pytest.mark.parametrize("own", [True, False])
def test_no_search_while_importing_in_a_process_of_ones_own(own, module, monkeypatch):
    monkeypatch.setattr(ownership, "_own", own)
    frozen = gc.get_freeze_count()
    loaded = load(module)
    assert loaded.searched is not own
    assert (gc.get_freeze_count() > frozen) is own
    assert gc.isenabled()


def test_search_goes_on_after_an_import_that_fails(monkeypatch):
    monkeypatch.setattr(ownership, "_own", True)
    with pytest.raises(ModuleNotFoundError):
        load("no_module_of_this_name")
    assert gc.isenabled()


def test_who_has_turned_the_search_off_finds_it_off(module, monkeypatch):
    monkeypatch.setattr(ownership, "_own", True)
    gc.disable()
    try:
        load(module)
        assert not gc.isenabled()
    finally:
        gc.enable()
