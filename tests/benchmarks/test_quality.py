"""The scores of the quality benchmark: known values, and that they tell better from worse."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from helpers import rand_image

from nst_lightning.config.presets import beside_package
from nst_lightning.features import VGG19


@pytest.fixture
def benchmarks(monkeypatch):
    """Its modules lie beside the package."""
    monkeypatch.syspath_prepend(str(beside_package("benchmarks")))
    yield
    for name in ("scores", "quality"):
        sys.modules.pop(name, None)


@pytest.fixture
def scores(benchmarks):
    import scores

    return scores


def waves(height=64, width=80, period=6.0):
    """Stripes along x, grey between 0.3 and 0.7."""
    line = 0.5 + 0.2 * torch.sin(2 * math.pi * torch.arange(width) / period)
    return line.expand(1, 3, height, width)


def test_the_ends_of_the_way(scores, tiny_weights):
    network = VGG19(str(tiny_weights))
    content, style = rand_image(64, 80), waves()
    at_content, at_style = (scores.judge(network, picture, content, style) for picture in (content, style))
    assert at_content.unseen == pytest.approx(0, abs=1e-5)
    assert at_content.patches == pytest.approx(0, abs=1e-5)
    assert at_content.structure == pytest.approx(1, abs=1e-4)
    assert (at_style.unseen, at_style.patches, at_style.spectrum) == pytest.approx((1, 1, 1), abs=1e-4)
    assert at_style.structure < 0.99  # a random network finds all pictures alike
    assert at_content.clipped == at_style.clipped == 0
    assert at_content.hatching == 1  # the content is noise, and has more of it than the style
    assert at_style.hatching < 0.1
    assert at_content.borders == pytest.approx(1, abs=0.2)
    total = (at_style.unseen + at_style.patches + at_style.structure + at_style.spectrum) / 4
    assert at_style.quality == pytest.approx(total)


def test_half_way_lies_between(scores):
    content, style = rand_image(64, 80), waves()
    distances = [scores.patch_distance(content.lerp(style, share), style) for share in (0.0, 0.5, 1.0)]
    assert distances[0] > distances[1] > distances[2] == 0
    assert scores.patch_distance(style, style.flip(-2)) < 1e-2  # places do not count


def test_patches_of_flat_pictures_by_hand(scores):
    """Flat grey, 0.2 apart: each direction sees 0.2 times the sum of its weights."""
    one, other = torch.full((1, 3, 40, 40), 0.5), torch.full((1, 3, 40, 40), 0.7)
    generator = torch.Generator().manual_seed(0)
    expected = []
    for _ in scores.SCALES:
        directions = torch.randn(scores.DIRECTIONS, 3 * scores.PATCH**2, generator=generator)
        sums = (directions / directions.norm(dim=1, keepdim=True)).sum(1)
        expected.append(float((0.2 * sums).square().mean().sqrt()))
    assert scores.patch_distance(one, other) == pytest.approx(sum(expected) / 3, rel=1e-4)


def test_a_wave_has_its_power_in_its_ring(scores):
    spectrum = scores.radial_spectrum(waves(128, 128, period=8.0))
    edges = torch.logspace(math.log10(1 / 32), math.log10(0.5), 33)
    ring = int(spectrum.argmax())
    assert edges[ring] <= 1 / 8 * 1.02
    assert edges[ring + 1] >= 1 / 8 * 0.98
    twice = 0.5 + 2 * (waves(128, 128, period=8.0) - 0.5)  # four times the power
    moved = scores.radial_spectrum(twice) - spectrum
    assert float(moved[ring]) == pytest.approx(math.log10(4), abs=1e-3)


def test_clipped_and_noise_by_hand(scores):
    picture = torch.tensor([0.0, 0.5, 1.0, 0.2]).view(1, 1, 2, 2).repeat(1, 3, 1, 1)
    assert scores.clipped(picture) == 0.5
    assert scores.peak_signal_to_noise(picture, picture + 0.1) == pytest.approx(20, abs=1e-3)


def test_correlation_is_that_of_numpy(scores):
    one, other = torch.rand(5, 5), torch.rand(5, 5)
    rows, columns = np.tril_indices(5, -1)
    expected = np.corrcoef(one.numpy()[rows, columns], other.numpy()[rows, columns])[0, 1]
    assert scores.correlation(one, other) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_a_whole_comparison(benchmarks, pair, tmp_path, monkeypatch, capsys, use_tiny_weights):
    import quality

    monkeypatch.setattr(quality, "VGG19", lambda units: VGG19(str(use_tiny_weights)))
    for name in ("one", "two"):
        stages = "evaluations: 3" if name == "one" else "evaluations: 50"
        (tmp_path / f"{name}.yaml").write_text(
            f"model: {{{stages}}}\ntrainer: {{accelerator: cpu}}\n", encoding="utf-8"
        )
    presets = [str(tmp_path / f"{name}.yaml") for name in ("one", "two")]
    command = ["quality.py", "--contents", str(pair[0]), "--styles", str(pair[1]), "--presets", *presets]
    options = ["--equal", "evaluations", "--size", "64", "--identity", "--output", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", [*command, *options])
    quality.main()
    report = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert [row["evaluations"] for row in report["results"]] == [3, 3]
    assert all(math.isfinite(row["quality"]) for row in report["results"])
    assert len(report["identity"]) == 2
    assert (tmp_path / "out" / "sheet.jpg").is_file()
    assert "first ahead" in capsys.readouterr().out


def test_equal_time_is_a_limit(benchmarks):
    import quality

    limit = quality.limits("time", {"seconds": 3725.4, "evaluations": 3})
    assert limit[:2] == ["--trainer.max_time", "00:01:02:05"]
    assert quality.limits("nothing", {"seconds": 1.0}) == quality.limits("time", None) == []
