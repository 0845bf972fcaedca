"""The benchmark command: its table, its plot and its refusals; and the baseline against an independent one."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nst_lightning.cli import benchmark, main
from nst_lightning.config.presets import beside_package
from nst_lightning.features import VGG19

FOLDER = beside_package("benchmarks")


def measurement(program="nst_lightning", **facts):
    return {"program": program, "suite": "evaluation", "accelerator": "cpu", "size": 256, "median": 0.5, "iqr": 0.02,
            "min": 0.4, "max": 0.6, "precision": "32-true", "optimizer": "lbfgs", **facts}  # fmt: skip


def test_ratios_are_to_the_baseline_of_the_same_size_and_device():
    rows = benchmark.table(
        [
            measurement("baseline", median=2.0, optimizer="torch lbfgs"),
            measurement(median=0.5),
            measurement(median=0.5, size=512),
            measurement(median=0.5, accelerator="cuda"),
        ]
    )
    assert [row.ratio for row in rows] == ["1.00", "0.25", "", ""]
    assert rows[1].median == "0.5 s"
    assert rows[1].spread == "± 10 ms"


def test_a_baseline_measured_in_turn_comes_before_one_measured_earlier():
    rows = benchmark.table([measurement("baseline", median=2.0), measurement(median=1.0, beside_seconds=4.0)])
    assert [row.ratio for row in rows] == ["1.00", "0.25"]


def test_other_suites_have_their_own_figures():
    rows = benchmark.table(
        [
            measurement("baseline", suite="memory", bytes=2**30),
            measurement(suite="memory", bytes=2**28),
            measurement(suite="target", evaluations=70, baseline_evaluations=150, baseline_seconds=2.0),
            measurement(suite="overhead", overhead_seconds=0.001, overhead_spread=0.0001, snapshot_seconds=0.002),
            {"suite": "peak", "accelerator": "cpu", "dtype": "bfloat16", "gigaflops": 400.0, "median": 1, "iqr": 0},
        ]
    )
    by_suite = {row.suite: row for row in rows}
    assert (by_suite["memory"].median, by_suite["memory"].ratio) == ("256 MiB", "0.25")
    assert (by_suite["target"].spread, by_suite["target"].ratio) == ("70 of 150 evaluations", "0.25")
    assert by_suite["overhead"].median == "+1 ms a step"
    assert by_suite["snapshot"].median == "2 ms"
    assert by_suite["peak"].median == "400 GFLOP/s"
    lines = benchmark.format_table(rows).splitlines()
    assert len(lines) == len(rows) + 1
    assert lines[0].startswith("suite")
    assert "kernels" not in lines[0]  # nobody has counted any


def peak(dtype, gigaflops, accelerator="cpu"):
    return {"suite": "peak", "accelerator": accelerator, "dtype": dtype, "gigaflops": gigaflops, "median": 1, "iqr": 0}


def test_the_share_of_the_peak_is_of_the_same_device_and_type():
    counts = {"operations": 50 * 10**9, "kernels": 321, "host_reads": 0}
    evaluations = [
        measurement(**counts),
        measurement(precision="bf16-mixed", **counts),
        measurement(accelerator="cuda", **counts),
    ]
    others = [peak("float32", 200.0), peak("bfloat16", 400.0), peak("bfloat16", 9e5, "cuda")]
    rows = benchmark.table([*evaluations, *others])
    assert [row.peak for row in rows[:3]] == ["50%", "25%", ""]  # 100 GFLOP/s, and no float32 peak of CUDA
    assert [(row.kernels, row.reads) for row in rows[:4]] == [("321", "0")] * 3 + [("", "")]
    assert benchmark.format_table(rows).splitlines()[0].split() == (
        ["suite", "what", "median", "spread", "ratio", "to", "baseline", "of", "peak", "kernels", "host", "reads"]
    )


def test_presets_say_images_an_hour():
    (row,) = benchmark.table(
        [measurement(suite="presets", preset="fast", median=20.0, evaluations=180, start_seconds=4.0, optimizer=None)]
    )
    assert (row.hourly, row.spread) == ("180", "180 evaluations, 4 s to start")
    assert "fast" in row.what


def test_tiles_are_compared_with_the_whole_of_their_own_device():
    tiling = {"suite": "tiling", "bytes": 2**30, "buffers": 2**20, "extractor": "vgg19"}
    rows = benchmark.table(
        [
            measurement(**tiling, tile=0, seconds=1.0),
            measurement(**tiling, tile=0, seconds=4.0, accelerator="cuda"),
            measurement(**tiling, tile=1024, seconds=2.0, accelerator="cuda"),
        ]
    )
    assert [row.ratio for row in rows] == ["", "", "0.50 of the whole"]


def written(folder, name, *benchmarks, **more):
    """A file of results."""
    path = folder / f"{name}.json"
    facts = {"hardware": {"cpu": "Old CPU", "cuda": "Some GPU"}, "benchmarks": list(benchmarks), **more}
    path.write_text(json.dumps(facts), encoding="utf-8")
    return str(path)


def test_results_of_several_machines_in_one_table(tmp_path, capsys):
    one = written(tmp_path, "one", measurement("baseline"), measurement(median=0.25), measurement(accelerator="cuda"))
    two = written(tmp_path, "two", measurement(median=0.1, kernels=7), hardware={"cpu": "New CPU"})
    assert main(["benchmark", "--compare", one, two, "--output", str(tmp_path / "out")]) == 0
    *lines, said = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "kernels" in lines[0]
    assert ["Old CPU 256 px, baseline" in line for line in lines] == [False, True, False, False, False]
    (old,) = [line for line in lines if "Old CPU 256 px, nst_lightning" in line]
    assert old.split()[-1] == "0.50"  # of its own machine's baseline
    (new,) = [line for line in lines if "New CPU 256 px, nst_lightning" in line]
    assert new.split()[-1] == "7"
    assert any("Some GPU" in line for line in lines)
    (plot,) = (tmp_path / "out").iterdir()
    assert str(plot) == said


def test_devices_of_one_name_are_told_apart_by_their_files(tmp_path, capsys):
    paths = [written(tmp_path, name, measurement()) for name in ("monday", "friday")]
    assert main(["benchmark", "--compare", *paths, "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "Old CPU (monday) 256 px" in printed
    assert "Old CPU (friday) 256 px" in printed


def test_results_that_were_written_before_still_compare(tmp_path, capsys):
    old = sorted(str(path) for path in (FOLDER / "results").glob("*_cpu.json"))
    assert len(old) >= 3
    assert main(["benchmark", "--compare", *old, "--output", str(tmp_path)]) == 0
    count = sum(len(json.loads(Path(path).read_text(encoding="utf-8"))["benchmarks"]) for path in old)
    assert len(capsys.readouterr().out.splitlines()) >= count + 2


BAD = {
    "a picture": b"\x89PNG\r\n",
    "text": b"no JSON",
    "a list": b"[1, 2]",
    "nothing": b'{"hardware": {}, "benchmarks": []}',
    "other results": b'{"pairs": [], "presets": []}',
    "no suite": b'{"hardware": {}, "benchmarks": [{"median": 1}]}',
    "no median": b'{"hardware": {}, "benchmarks": [{"suite": "peak", "accelerator": "cpu", "iqr": 0, "gigaflops": 1}]}',
    "a word": b'{"hardware": {}, "benchmarks": [{"suite": "peak", "accelerator": "cpu", "iqr": 0, "median": 1, '
    b'"gigaflops": "many"}]}',
    "a number": b"7",
}


@pytest.mark.parametrize("what", BAD)
def test_files_that_are_no_results(what, tmp_path, capsys):
    path = tmp_path / "some.json"
    path.write_bytes(BAD[what])
    assert main(["benchmark", "--compare", str(path), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--compare: must be results of nst benchmark, got" in error
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert main(["benchmark", "--compare", str(tmp_path / "gone.json")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_plot(tmp_path):
    points = [measurement(size=size, median=size / 1000, min=size / 2000, max=size / 500) for size in (256, 512)]
    assert benchmark.draw(points, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert not benchmark.draw([measurement(suite="memory")], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--suites", "speed"], "--suites: must be of peak, evaluation"),
        (["--sizes", "big"], "--sizes: must be whole numbers"),
        (["--rounds", "0"], "--rounds: must be at least 1, got 0"),
        (["--rounds", "few"], "--rounds"),
        (["--accelerators", "tpu"], "--accelerators: must be of cpu, cuda, mps, xpu, or auto, got 'tpu'"),
        (["--precisions", "16-true"], "trainer.precision: must be auto"),
        (["--what"], "--what"),
    ],
)
def test_refusals(args, said, capsys, tmp_path):
    assert main(["benchmark", *args, "--output", str(tmp_path / "results")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_optimizers_run_and_are_written(tmp_path, capfd):
    """The one suite that needs no weights, from the command to the file."""
    args = ["--suites", "optimizer", "--sizes", "64", "--rounds", "1", "--accelerators", "cpu"]
    assert main(["benchmark", *args, "--output", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("*.json")
    result = json.loads(file.read_text())
    assert {b["optimizer"] for b in result["benchmarks"]} >= {"lbfgs", "torch lbfgs", "adam"}
    assert all(b["median"] > 0 for b in result["benchmarks"])
    assert torch.__version__.startswith(result["versions"]["torch"])
    assert "cpu" in result["hardware"]
    assert "torch lbfgs" in capfd.readouterr().out


def test_the_baseline_minimises_what_the_project_calls_released(tiny_weights, monkeypatch):
    """Same function, same gradient: ratios compare the same work."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    baseline = runpy.run_path(str(FOLDER / "baseline.py"))
    extractor = VGG19(str(tiny_weights))
    weights = [(layer.weight, layer.bias) for layer in extractor.convolutions]
    torch.manual_seed(0)
    content, style = torch.rand(2, 1, 3, 32, 48)
    chain = nn.Sequential()  # written once more, so that nothing is compared with itself
    for index, (weight, bias) in enumerate(weights[:13]):
        if index in {2, 4, 8, 12}:
            chain.append(nn.MaxPool2d(2))
        convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        convolution.load_state_dict({"weight": weight, "bias": bias})
        chain.extend([convolution, nn.ReLU()])

    def features(x):
        found, x = [], (x - extractor.mean) / extractor.std
        for layer in chain:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(x)
        return found

    total = torch.zeros(())
    for index in (0, 2, 4, 8, 12):
        ours, theirs = features(content)[index][0].flatten(1), features(style)[index][0].flatten(1)
        total = total + 1e6 * nn.MSELoss()(ours @ ours.T / ours.numel(), theirs @ theirs.T / theirs.numel())
    monkeypatch.setitem(baseline, "BLOCKS", (2, 2, 4, 4, 1))
    step, image = baseline["make_step"](baseline["Network"](weights, extractor.mean, extractor.std), content, style)
    assert step() == pytest.approx(float(total.detach()), rel=1e-4)
    assert not torch.equal(image, content)


def test_the_baseline_runs_beside_in_a_process_of_its_own(use_tiny_weights):
    baseline_beside = runpy.run_path(str(FOLDER / "beside.py"))["baseline_beside"]
    with baseline_beside(64, "cpu") as step:
        assert all(0 < step() < 60 for _ in range(3))
