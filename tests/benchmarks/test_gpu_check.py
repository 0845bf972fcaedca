"""The check for people with a GPU: its sections, what happens to those that fail, its gates."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from nst_lightning.config.presets import beside_package

FOLDER = beside_package("benchmarks")
MODULES = ("gpu_check", "gpu_sections", "beside", "counting", "memory", "programs", "baseline")


@pytest.fixture
def modules(monkeypatch):
    """Program and sections, which are no part of the package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu_check
    import gpu_sections

    yield gpu_check, gpu_sections
    sys.modules["programs"]._SETTINGS.close()
    for name in MODULES:
        sys.modules.pop(name, None)


def noted(sections, name, folder):
    """Run a section here, tiny; returns what it wrote."""
    sections.SECTIONS[name](sections.Notes(name, folder, "cpu", "tiny", 60.0))
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_sections_have_budgets_of_ten_minutes_in_all(modules):
    check, sections = modules
    assert set(check.BUDGETS) == set(sections.SECTIONS)
    assert sum(check.BUDGETS.values()) <= 600
    assert {gate.section for gate in check.GATES} <= set(sections.SECTIONS)
    shares = dict(check.shares(["peak", "profile"]))
    assert shares["profile"] == 1
    assert 0 < shares["peak"] < 1


def test_correctness_is_measured_and_judged(modules, tmp_path):
    check, sections = modules
    known = noted(sections, "correctness", tmp_path)
    assert {row["objective"] for row in known["rows"]} == {"default", "painterly"}
    exact = [row for row in known["rows"] if row["precision"] == "32-true"]
    assert len(exact) == 3
    assert all(row["loss_error"] < 1e-3 and row["cosine"] > 0.999 for row in exact)
    judged = {gate.words: state for gate, state in check.judge({"correctness": known})}
    assert judged["float32: gradient within 1 % of float64's"] == "pass"
    assert judged["a gallery of 16 is made"] == "not measured"
    known["rows"][0]["loss_error"] = 0.5
    judged = {gate.words: state for gate, state in check.judge({"correctness": known})}
    assert judged["float32: loss within 0.1 % of float64's"] == "FAILED"


def test_an_evaluation_is_measured_with_its_share_of_the_peak(modules, tmp_path, use_tiny_weights):
    check, sections = modules
    found = {name: noted(sections, name, tmp_path) | {"state": "done", "took": 1.0} for name in ("peak", "evaluation")}
    row = found["evaluation"]["rows"][0]
    assert row["ratio"] == pytest.approx(row["seconds"] / row["baseline_seconds"])
    assert row["host_reads"] is row["waits"] is None  # a CPU does not say
    text = "\n".join(check.describe(found))
    assert "of_peak" in text
    assert "%" in text
    judged = {gate.words: state for gate, state in check.judge(found)}
    assert judged["an evaluation reads nothing on the host"] == "not measured"
    assert judged["CUDA says that an evaluation never waits"] == "not measured"


def test_memory_is_what_the_process_took(modules, tmp_path):
    _, sections = modules
    (row,) = noted(sections, "memory", tmp_path)["rows"]
    assert row["predicted"] > 0
    assert row["bytes"] > 1 << 27


GATES = {
    "memory": ({"rows": [{"bytes": 110, "predicted": 100}], "facts": {}}, {"rows": [{"bytes": 120, "predicted": 100}]}),
    "gatys": ({"facts": {"asked": 5, "evaluations": 5, "error": 0.01, "error_float32": 0.001}, "rows": []},
              {"facts": {"asked": 5, "evaluations": 4, "error": 0.1, "error_float32": 0.1}, "rows": []}),
    "gallery": ({"facts": {"pictures": 16, "code": 0}, "rows": []}, {"facts": {"pictures": 15, "code": 1}, "rows": []}),
    "processes": ({"rows": [{"loss": 1.0}, {"loss": 1.0001}], "facts": {}}, {"rows": [{"loss": 1.0}, {"loss": 1.1}]}),
    "painterly": ({"rows": [{"host_reads": 0, "waits": 0}]}, {"rows": [{"host_reads": 5, "waits": 2}]}),
    "evaluation": ({"rows": [{"size": 512, "ratio": 0.9, "host_reads": 0, "waits": 0}, {"size": 64, "ratio": 2.0}]},
                   {"rows": [{"size": 512, "ratio": 1.1, "host_reads": 1, "waits": 1}, {"size": 64, "ratio": 0.1}]}),
}  # fmt: skip


@pytest.mark.parametrize("section", GATES)
def test_each_gate_passes_and_fails(modules, section):
    check, _ = modules
    good, bad = GATES[section]
    for known, state in ((good, "pass"), (bad, "FAILED"), ({"rows": [], "facts": {}}, "not measured")):
        judged = [found for gate, found in check.judge({section: known}) if gate.section == section]
        assert judged
        assert set(judged) == {state}


def test_a_failed_section_is_listed_and_the_rest_goes_on(tmp_path, monkeypatch):
    """The weights are missing, which `evaluation` needs."""
    monkeypatch.setenv("NST_VGG19_WEIGHTS", str(tmp_path / "gone.safetensors"))
    command = [sys.executable, str(FOLDER / "gpu_check.py"), "--device", "cpu", "--tiny", "--minutes", "5",
               "--sections", "evaluation,peak", "--output", str(tmp_path / "out")]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    states = {name: section["state"] for name, section in report["sections"].items()}
    assert states["evaluation"].startswith("failed (")
    assert states["peak"] == "done"
    assert report["sections"]["peak"]["rows"][0]["gigaflops"] > 0
    assert report["gates"]["a gallery of 16 is made"] == "not measured"
    text = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    assert text.strip() in found.stdout
    assert "gigaflops" in text


def test_a_section_out_of_time_is_ended_and_keeps_what_it_wrote(modules, tmp_path, monkeypatch):
    check, _ = modules
    script = tmp_path / "gpu_sections.py"
    script.write_text(
        "import json, pathlib, sys, time\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    name = line.split()[0]\n"
        "    (pathlib.Path(sys.argv[1]) / f'{name}.json').write_text(json.dumps({'rows': [{'x': 1}], 'facts': {}}))\n"
        "    if name == 'gatys':\n"
        "        time.sleep(600)\n"
        "    if name == 'peak':\n"
        "        sys.exit(3)\n"
        "    print('done', flush=True)\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(check, "__file__", str(tmp_path / "gpu_check.py"))
    worker = check.Worker(tmp_path, "cpu", "tiny")
    begin = time.monotonic()
    assert worker.run("memory", 60.0)["state"] == "done"
    late = worker.run("gatys", 2.0)
    assert (late["state"], late["rows"]) == ("out of time", [{"x": 1}])
    assert worker._process is None
    assert worker.run("peak", 60.0)["state"] == "failed (its process ended, 3)"
    assert worker.run("gallery", 60.0)["state"] == "done"
    assert worker.run("profile", 0.5)["state"] == "out of time before it began"
    worker.end()
    assert time.monotonic() - begin < 300
