"""The check for people with a GPU: its sections, what happens to those that fail, its gates."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from nst_lightning.config.presets import beside_package

FOLDER = beside_package("benchmarks")
MODULES = ("gpu_check", "gpu_gates", "gpu_sections", "beside", "counting", "memory", "programs", "baseline")


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


def states(check, found, **options):
    """The state of each gate by its words."""
    return {one.gate.words: one.state for one in check.judge(found, **options)}


def test_sections_have_budgets_of_ten_minutes_in_all(modules):
    check, sections = modules
    assert set(check.BUDGETS) == set(sections.SECTIONS)
    assert sum(check.BUDGETS.values()) <= 600
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
    judged = states(check, {"correctness": known})
    assert judged["float32: error of the gradient beside float64's"] == "pass"
    assert judged["pictures of a gallery of 16"] == "not measured"
    known["rows"][0]["loss_error"] = 0.5
    assert states(check, {"correctness": known})["float32: error of the loss beside float64's"] == "FAILED"


def test_an_evaluation_is_measured_with_its_share_of_the_peak(modules, tmp_path, use_tiny_weights):
    check, sections = modules
    found = {name: noted(sections, name, tmp_path) | {"state": "done", "took": 1.0} for name in ("peak", "evaluation")}
    row = found["evaluation"]["rows"][0]
    assert row["ratio"] == pytest.approx(row["seconds"] / row["baseline_seconds"])
    assert row["host_reads"] is row["waits"] is None  # a CPU does not say
    text = "\n".join(check.describe(found))
    assert "of_peak" in text
    assert "%" in text
    judged = states(check, found)
    assert judged["times that an evaluation reads on the host"] == "not measured"
    assert judged["times that an evaluation waits, as CUDA says"] == "not measured"


def test_memory_is_what_the_process_took(modules, place):
    _, sections = modules
    (row,) = noted(sections, "memory", place)["rows"]
    assert row["predicted"] > 0
    assert row["bytes"] > 1 << 27
    assert not (place / "runs").exists()  # where it is begun it leaves nothing


PEAK = [{"dtype": "float32", "gigaflops": 50.0}, {"dtype": "bfloat16", "gigaflops": 800.0}]
# Of all sections: one that keeps every gate and reaches every aim, and one that keeps and reaches none.
GOOD = {
    "correctness": {"rows": [{"precision": "32-true", "loss_error": 1e-4, "gradient_error": 1e-3},
                             {"precision": "bf16-mixed", "loss_error": 0.019, "gradient_error": 0.5}]},
    "peak": {"rows": PEAK},
    "evaluation": {"rows": [{"size": 512, "precision": "32-true", "ratio": 0.9, "host_reads": 0, "waits": 0},
                            {"size": 512, "precision": "bf16-mixed", "ratio": 0.12, "host_reads": 0, "waits": 0},
                            {"size": 1024, "precision": "bf16-mixed", "ratio": 2.0, "seconds": 0.01,
                             "operations": 4.8e9}]},
    "painterly": {"rows": [{"size": 512, "milliseconds": 9.0, "host_reads": 0, "waits": 0},
                           {"size": 512, "milliseconds": 2.4, "host_reads": 0, "waits": 0}]},
    "recorded": {"rows": [{"loss_difference": 0.0}, {"loss_difference": 1e-3}]},
    "memory": {"rows": [{"bytes": 109, "predicted": 100}, {"bytes": 91, "predicted": 100}, {"predicted": 5}]},
    "gatys": {"facts": {"asked": 500, "evaluations": 500, "error": -0.01, "error_float32": 0.001, "warm_up": 10,
                        "after_warm_up": 1.9, "seconds": 2.1, "said_seconds": 2.5}},
    "gallery": {"facts": {"pictures": 16, "code": 0}},
    "processes": {"rows": [{"loss": 1.0}, {"loss": 1.0001}]},
}  # fmt: skip
BAD = {
    "correctness": {"rows": [{"precision": "32-true", "loss_error": 1e-2, "gradient_error": 0.1},
                             {"precision": "bf16-mixed", "loss_error": 0.021}]},
    "peak": {"rows": PEAK},
    "evaluation": {"rows": [{"size": 512, "precision": "32-true", "ratio": 1.1, "host_reads": 1, "waits": 1},
                            {"size": 64, "ratio": 0.1, "host_reads": 0, "waits": 0},
                            {"size": 1024, "precision": "bf16-mixed", "ratio": 0.1, "seconds": 0.02,
                             "operations": 4.8e9}]},
    "painterly": {"rows": [{"size": 512, "milliseconds": 2.6, "host_reads": 5, "waits": 2}]},
    "recorded": {"rows": [{"loss_difference": float("nan")}, {"loss_difference": 0.0}]},
    "memory": {"rows": [{"bytes": 109, "predicted": 100}, {"bytes": 80, "predicted": 100}]},
    "gatys": {"facts": {"asked": 500, "evaluations": 400, "error": 0.1, "error_float32": -0.1, "warm_up": 10,
                        "after_warm_up": 1.9, "seconds": 2.1, "said_seconds": 9.0}},
    "gallery": {"facts": {"pictures": 15, "code": 1}},
    "processes": {"rows": [{"loss": 1.0}, {"loss": 1.1}]},
}  # fmt: skip


def test_each_gate_passes_and_fails_and_each_aim_is_reached_and_missed(modules):
    check, _ = modules
    for found, states_of in ((GOOD, ("pass", "reached")), (BAD, ("FAILED", "missed"))):
        judged = check.judge(found)
        assert {one.gate.is_aim for one in judged} == {True, False}
        for one in judged:
            assert (one.gate.words, one.state) == (one.gate.words, states_of[one.gate.is_aim])


@pytest.mark.parametrize("found", [{}, {name: {"rows": [], "facts": {}} for name in GOOD}])
def test_what_no_section_has_is_not_measured(modules, found):
    check, _ = modules
    assert {(one.state, one.figure) for one in check.judge(found)} == {("not measured", None)}


def test_a_gate_says_the_figure_that_was_measured(modules):
    check, _ = modules
    lines = {one.gate.words: str(one) for one in check.judge(GOOD)}
    figures = {
        "an evaluation at 512 px, over plain PyTorch's in float32": "0.12",
        "bfloat16's share of the measured peak at 1024 px": "0.6",  # 4.8 gigaflop in 10 ms, of 800 a second
        "milliseconds of an evaluation of painterly": "2.4",
        "memory that runs took over what they said, the farthest from 1": "0.91",
        "gatys: error of the early loss beside the CPU's": "0.01",
        "gatys: seconds of all evaluations, once warm": "1.939",  # 1.9 * 500 / 490
        "gatys: time that it took over what it said": "0.84",
    }
    for words, figure in figures.items():
        assert lines[words].split(words)[0].split()[-1] == figure
    assert lines["milliseconds of an evaluation of painterly"].endswith("(at most 2.5)")
    assert lines["memory that runs took over what they said, the farthest from 1"].endswith(
        "(at least 0.9, at most 1.1)"
    )
    assert lines["the gallery's exit code"].endswith("(0)")


def test_one_number_that_is_none_fails_the_gate_wherever_it_stands(modules):
    check, _ = modules
    for errors in ((float("nan"), 0.0), (0.0, float("nan"))):
        rows = [{"precision": "bf16-mixed", "loss_error": error} for error in errors]
        assert (
            states(check, {"correctness": {"rows": rows}})["bfloat16: error of the loss beside float64's"] == "FAILED"
        )


def test_aims_are_of_large_devices(modules):
    check, _ = modules
    judged = check.judge(BAD, aims=False)
    assert {one.state for one in judged if one.gate.is_aim} == {"not measured"}
    assert {one.state for one in judged if not one.gate.is_aim} == {"FAILED"}


@pytest.mark.parametrize(
    ("options", "row", "code", "state"),
    [
        (["--device", "cuda"], {"milliseconds": 2.6}, 0, "missed"),
        (["--device", "cuda", "--small"], {"milliseconds": 2.6}, 0, "not measured"),
        (["--device", "cpu"], {"milliseconds": 2.6}, 0, "not measured"),
        (["--device", "cuda"], {"milliseconds": 2.4, "host_reads": 1}, 1, "reached"),
    ],
)
def test_an_aim_that_is_missed_is_no_failure(modules, tmp_path, monkeypatch, options, row, code, state):
    check, _ = modules

    class Worker:
        def __init__(self, *_):
            pass

        def run(self, name, seconds):
            return {"rows": [{"size": 512, **row}], "facts": {}, "state": "done", "took": 0.0}

        def end(self):
            pass

    monkeypatch.setattr(check, "Worker", Worker)
    monkeypatch.setattr(check, "available", lambda: ["cuda", "cpu"])
    arguments = ["gpu_check.py", "--sections", "painterly", "--output", str(tmp_path), *options]
    monkeypatch.setattr(sys, "argv", arguments)
    assert check.main() == code
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["gates"]["milliseconds of an evaluation of painterly"]["state"] == state


def test_steps_are_recorded_or_not_as_the_environment_says(modules, tmp_path, monkeypatch):
    """Steps that are made up: the recorded one is a thousandth off after its first evaluation."""
    _, sections = modules
    made = []

    def our_step(*_, **__):
        wanted, evaluations = os.environ["NST_CUDA_GRAPHS"], itertools.count()
        made.append(wanted)
        return lambda: 2.0 * (1.001 if wanted == "1" and next(evaluations) else 1), None

    recording = SimpleNamespace(recorder_for=lambda device, values: object())
    monkeypatch.setitem(sys.modules, "nst_lightning.hardware.recording", recording)
    monkeypatch.setattr(sections, "our_step", our_step)
    monkeypatch.delenv("NST_CUDA_GRAPHS", raising=False)
    known = noted(sections, "recorded", tmp_path)
    assert made == ["0", "1"] * 2
    assert "NST_CUDA_GRAPHS" not in os.environ
    assert [row["objective"] for row in known["rows"]] == ["default", "painterly"]
    for row in known["rows"]:
        assert row["loss_difference"] == pytest.approx(1e-3, rel=1e-2)
        assert min(row["ratio"], row["milliseconds"], row["usual_milliseconds"]) > 0


def test_a_device_without_graphs_records_nothing(modules, tmp_path):
    _, sections = modules
    known = noted(sections, "recorded", tmp_path)
    assert known["rows"] == []
    assert known["facts"] == {"skipped": "nothing is recorded on cpu"}


def test_variants_are_measured_beside_the_usual_step(modules, tmp_path, monkeypatch, use_tiny_weights):
    """And leave the process as it was."""
    _, sections = modules
    asked, build = [], sections.our_step

    def our_step(*args, order=None, **options):
        asked.append((order, torch.backends.cudnn.benchmark))
        return build(*args, order=order, **options)

    monkeypatch.setattr(sections, "our_step", our_step)
    rows = noted(sections, "variants", tmp_path)["rows"]
    count = len(sections.precisions("cpu"))
    assert [row["variant"] for row in rows] == ["cudnn.benchmark", "channels last", "channels first"] * count
    assert all(row["ratio"] > 0 and row["milliseconds"] > 0 for row in rows)
    assert (
        asked == [(None, False), (None, True), (torch.channels_last, False), (torch.contiguous_format, False)] * count
    )
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
def test_an_order_of_dimensions_is_what_convolutions_take_and_changes_no_loss(modules, order, monkeypatch):
    programs = sys.modules["programs"]
    seen, plain = [], torch.nn.functional.conv2d

    def conv2d(x, *args, **options):
        result = plain(x, *args, **options)
        seen.extend((x, result))
        return result

    monkeypatch.setitem(
        programs.EXTRACTORS, "plain", lambda: programs.CompactVGG19(convolution="direct").to(torch.float32)
    )
    step, _ = programs.our_step(48, "cpu", "32-true", extractor="plain", order=order)
    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    loss = float(step())
    maps = [each for each in seen if each.shape[1] > 3 and min(each.shape[-2:]) > 1]
    assert maps
    assert all(each.is_contiguous(memory_format=order) for each in maps)
    usual, _ = programs.our_step(48, "cpu", "32-true", extractor="plain")
    assert loss == pytest.approx(float(usual()), rel=1e-5)


def test_the_profile_is_of_kernels_alone_where_there_are_any(modules):
    """A profiler says the time of a kernel once for itself, and once for the operator that started it."""
    _, sections = modules
    host, device = torch.autograd.DeviceType.CPU, torch.autograd.DeviceType.CUDA
    events = [
        SimpleNamespace(key=key, count=count, device_type=kind, is_user_annotation=marked, self_cpu_time_total=on_host,
                        self_device_time_total=on_device)
        for key, count, kind, marked, on_host, on_device in (
            ("aten::mm", 2, host, False, 7.0, 50.0), ("gemm", 2, device, False, 0.0, 50.0),
            ("relu", 3, device, False, 0.0, 80.0), ("ProfilerStep", 1, device, True, 0.0, 130.0),
        )
    ]  # fmt: skip
    assert sections.work_of(events, on_host=False) == [
        {"name": "relu", "calls": 3, "us": 80.0},
        {"name": "gemm", "calls": 2, "us": 50.0},
    ]
    assert sections.work_of(events, on_host=True)[0] == {"name": "aten::mm", "calls": 2, "us": 7.0}


def test_a_profile_says_how_much_of_the_time_is_filled(modules, tmp_path, use_tiny_weights):
    _, sections = modules
    known = noted(sections, "profile", tmp_path)
    for objective in ("default", "painterly"):
        rows = [row for row in known["rows"] if row["objective"] == objective]
        assert [row["us"] for row in rows] == sorted((row["us"] for row in rows), reverse=True)
        assert 0 < sum(row["share"] for row in rows) <= 1 + 1e-9
        filled = known["facts"][f"{objective}_computing"] * known["facts"][f"{objective}_milliseconds"] * 1000
        assert filled == pytest.approx(rows[0]["us"] / rows[0]["share"])


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
    assert report["gates"]["pictures of a gallery of 16"]["state"] == "not measured"
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
