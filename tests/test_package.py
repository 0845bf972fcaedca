"""What is installed is what lies in the repository."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_git_ignores_no_source():
    """The builder of wheels leaves out what git ignores, such as a package that is named like an ignored folder."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a clone and git")
    sources = [
        str(path.relative_to(ROOT))
        for folder in ("nst_lightning", "configs", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    found = subprocess.run(command, cwd=ROOT, input="\n".join(sources), capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("", 1)  # 1: none of them


def test_no_two_files_of_tests_have_one_name():
    """Folders of tests are no packages, so that pytest loads one file of a name and stops at the second."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_an_installed_copy_holds_every_module():
    installed = {str(path) for path in files("nst_lightning") or []}
    if "nst_lightning/__init__.py" not in installed:
        pytest.skip("installed as a link to this folder")
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "nst_lightning").rglob("*")
        if path.is_file() and path.suffix in {".py", ".safetensors", ".json", ".jpg", ".typed", ".yaml"}
    }
    assert sources - installed == set()
    assert {"nst_lightning/configs/fast.yaml", "nst_lightning/configs/quickstart.yaml"} <= installed
