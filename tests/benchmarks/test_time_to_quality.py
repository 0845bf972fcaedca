"""The benchmark of two builds: when scores count as reached, what is said of many pairs, and a run as it is timed."""

from __future__ import annotations

import sys

import pytest

from nst_lightning.config.presets import beside_package

GOAL = {"style": 0.9, "unseen": 0.8, "patches": 0.7, "content": 0.5}


@pytest.fixture
def bench(monkeypatch):
    """The module lies beside the package."""
    monkeypatch.syspath_prepend(str(beside_package("benchmarks")))
    import time_to_quality

    yield time_to_quality
    for name in ("scores", "quality", "time_to_quality"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"style": 0.896}, True),
        ({"style": 0.894}, False),
        ({"unseen": 0.79}, False),
        ({"patches": 0.69}, False),
        ({"content": 0.514}, True),
        ({"content": 0.516}, False),
        ({"content": 0.1, "style": 0.99}, True),
    ],
)
def test_when_scores_are_reached(bench, change, expected):
    assert bench.is_reached({**GOAL, **change}, GOAL, lower=0.005, content=1.03) is expected


def test_what_is_said_of_many_pairs(bench):
    ratios = [{"seconds": s, "cpu": s, "evaluating": s / 2, "memory": 1.0} for s in (0.2, 0.3, 0.6)]
    results = [
        {
            "pair": "a b",
            "ratios": each,
            "is_reached": each["seconds"] < 0.5,
            "before": {"scores": GOAL, "seconds": 10.0, "judged": {"gram": 0.5}},
            "after": {"scores": {**GOAL, "style": 0.91, "content": 0.51}, "seconds": 3.0, "judged": {"gram": 0.6}},
        }
        for each in ratios
    ]
    said = bench.summary(results)
    assert "seconds     median 0.300  quartiles 0.250 0.450  worst 0.600" in said
    assert "style       medians 0.900 0.910  change median +0.010" in said
    assert "content     medians 0.500 0.510  ratio median +1.020" in said
    assert "gram        medians 0.500 0.600" in said
    assert "as good as before on 2 of 3 pairs" in said
    assert "10.0 s ->   3.0 s (0.60)" in bench.line(results[2])
    assert bench.line(results[2]).endswith("LOWER")


def test_a_run_as_it_is_timed(bench, pair, place):
    asked = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "32"]
    asked += ["--model.evaluations", "3", "--trainer.accelerator", "cpu", "--snapshot_every", "2"]
    made = bench.run(beside_package("nst_lightning").parent, asked, place / "run")
    assert made.picture.is_file()
    assert len(made.evaluating) == 3
    assert 0 < made.evaluating[-1] < made.seconds
    assert made.cpu > 0.5
    assert made.memory > 100  # MiB
    assert [path.name for path in (made.folder / "snapshots").iterdir()] == ["000002.png"]
    with pytest.raises(SystemExit, match=r"exit code 2.*data\.size"):
        bench.run(beside_package("nst_lightning").parent, [*asked, "--data.size", "0"], place / "run")
