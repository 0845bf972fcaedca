"""Packages of which a run needs little."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from nst_lightning.process import parts
from nst_lightning.process.loading import load
from nst_lightning.process.parts import parts_alone

INIT = """
import logging
_logger = logging.getLogger(__name__)
__version__ = "1.5"
from few.inner import first
from few.part import Part
from few.heavy import Heavy
late = "late"
"""


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A package of a part and the rest, as torchmetrics is made; of the rest it is told when it is loaded."""
    folder = tmp_path / "few"
    (folder / "inner").mkdir(parents=True)
    modules = {
        "__init__": INIT,
        "inner/__init__": "from few.inner.says import first",
        "inner/says": "from few import _logger\nfrom few.part import Part\nfirst = _logger.name",
        "part": "from few.inner import says\nclass Part: pass",
        "heavy": "from few import Part\nclass Heavy(Part): pass",
        "about": '__version__ = "1.5"',
    }
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(parts, "PACKAGES", {"few": {"__version__": ("few.about",), "Part": ("few.inner", "few.part")}})
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "few"]:
        del sys.modules[name]


def _import():
    with parts_alone():
        import few
    return few


def test_a_part_is_the_packages_own_and_the_rest_waits_for_who_asks(few):
    package = _import()
    from few import Part, __version__

    assert "few.part" in sys.modules
    assert "few.heavy" not in sys.modules
    assert not hasattr(package, "__wrapped__")  # as debuggers and doctest ask of whatever there is
    assert "few.heavy" not in sys.modules
    assert issubclass(package.Heavy, Part)
    assert (package.late, package.Part, package.first, __version__) == ("late", Part, "few", "1.5")
    with pytest.raises(AttributeError, match="nowhere"):
        _ = package.nowhere


@pytest.mark.parametrize("ask", [dir, lambda package: [*package.__dict__, *dir(package)], vars])
def test_what_there_is_to_list_is_there(few, ask):
    package = _import()
    names = ask(package)
    assert ask is vars or "late" in names


def test_from_the_package_come_all_names(few):
    _import()
    found = {}
    exec("from few import *", found)
    assert found["late"] == "late"


def test_a_module_of_the_rest_can_be_imported(few):
    _import()
    from few.heavy import Heavy

    assert Heavy.__mro__[1].__module__ == "few.part"


def test_a_version_that_is_made_in_another_way_is_loaded_as_a_whole(few):
    (few / "inner" / "says.py").write_text("from few import late_one\nfirst = 'few'", encoding="utf-8")
    begin = INIT.replace("import logging", "import logging\nlate_one = 1")
    (few / "__init__.py").write_text(begin, encoding="utf-8")
    package = _import()
    assert package.Part is sys.modules["few.part"].Part
    assert package.late == "late"


def test_an_error_in_the_package_is_its_own_each_time(few):
    (few / "heavy.py").write_text("raise RuntimeError('no heavy')", encoding="utf-8")
    package = _import()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no heavy"):
            _ = package.late


def test_threads_get_the_package_once(few):
    (few / "heavy.py").write_text("import time\ntime.sleep(0.05)\nclass Heavy: pass", encoding="utf-8")
    package = _import()
    found = []
    threads = [threading.Thread(target=lambda: found.append((package.Heavy, package.Part))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_afterwards_packages_are_imported_as_ever(few):
    before = list(sys.meta_path)
    with parts_alone():
        pass
    assert sys.meta_path == before
    import few as package

    assert "few.heavy" in sys.modules
    assert type(package) is type(sys)


def test_loading_takes_parts_alone(few, tmp_path):
    (tmp_path / "wants_part.py").write_text("from few import Part", encoding="utf-8")
    load("wants_part")
    assert "few.heavy" not in sys.modules


def test_a_run_has_of_lightnings_metrics_the_classes_alone():
    # In a process of its own: here all of it is imported for other tests.
    code = (
        "import sys; from nst_lightning.process.loading import load; load('nst_lightning.cli.fit');"
        "print(*({'scipy', 'torchvision', 'torchmetrics.functional', 'torchmetrics.audio'} & set(sys.modules)));"
        "import lightning.pytorch.core.module as module, torchmetrics;"
        "assert issubclass(torchmetrics.MeanMetric, module.Metric) and torchmetrics.Metric is module.Metric;"
        "from torchmetrics.functional.regression import mean_squared_error"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr[-2000:]
