"""Compression in closed form, and the training of the compact encoder."""

import copy
import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

from nst_lightning.cli import main
from nst_lightning.distillation.compression import choose_channels, compress, leading_inputs, regress
from nst_lightning.distillation.data import DistillationData, split_folder
from nst_lightning.distillation.growth import grow
from nst_lightning.distillation.loss import INNER_TAPS, STYLE_TAPS
from nst_lightning.distillation.module import Distillation
from nst_lightning.distillation.network import NAMES, teacher_network, teacher_widths
from nst_lightning.distillation.score import HeldOutScore, shipped_form
from nst_lightning.distillation.storage import earlier_runs, load_student, save_student
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19
from nst_lightning.features.compact import TAPS
from nst_lightning.features.convolutions import LAST_OF_BLOCK

HALF = [2, 3, 4, 5, 6, 6, 6, 6, 10, 10, 10, 10, 12]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("distill")
    generator = np.random.default_rng(0)
    for kind in ("photos", "art"):
        (root / kind).mkdir()
        for index in range(20):
            coarse = torch.tensor(generator.random((1, 3, 7, 9)))
            pixels = F.interpolate(coarse, size=(70, 90), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0) * 255
            Image.fromarray(pixels.byte().numpy()).save(root / kind / f"{index:02}.png")
    return root / "photos", root / "art"


@pytest.fixture
def teacher(tiny_weights):
    extractor = VGG19(str(tiny_weights))
    extractor.use_layers(TAPS)
    return extractor


def test_channels_are_chosen_as_by_pivoted_qr():
    import scipy.linalg

    generator = torch.Generator().manual_seed(0)
    features = (torch.randn(400, 12, generator=generator) @ torch.randn(12, 12, generator=generator)).relu()
    chosen, left = choose_channels(features, 5)
    size = features.double().square().mean(0).sqrt()
    _, r, order = scipy.linalg.qr((features / size.sqrt()).numpy(), mode="economic", pivoting=True)
    assert chosen == sorted(order[:5].tolist())
    energy = np.square(r).sum()
    expected = [np.square(r[k:, k:]).sum() / energy for k in range(1, 13)]
    np.testing.assert_allclose(left[:-1], expected[:-1], rtol=1e-4)


def test_a_channel_is_chosen_once_even_if_nothing_is_left_of_any():
    features = torch.rand(300, 4, generator=torch.Generator().manual_seed(0))
    silent = torch.cat([features, torch.zeros(300, 3), features[:, :2]], dim=1)
    assert choose_channels(silent, 9)[0] == list(range(9))


def test_regression_against_numpy():
    generator = torch.Generator().manual_seed(0)
    x, truth = torch.randn(500, 6, generator=generator), torch.randn(4, 6, generator=generator)
    found = regress(x, x @ truth.T)
    expected = np.linalg.lstsq(x.numpy(), (x @ truth.T).numpy(), rcond=None)[0].T
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)  # the ridge pulls a little


def test_compression_to_full_width_is_the_teacher(teacher):
    full = teacher_network(teacher)
    images = [torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    student, reports = compress(full, teacher_widths(teacher), images, samples=5000)
    assert [report.name for report in reports] == [name.replace("conv", "relu") for name in NAMES]
    for tap, expected in teacher(images[0], TAPS).items():
        with torch.no_grad():
            ours = student.project(tap, student(images[0])[tap])
        assert (ours - expected).norm() < 0.05 * expected.norm()


def test_compression_to_full_rank_is_the_teacher(teacher):
    full, widths = teacher_network(teacher), teacher_widths(teacher)
    images = [torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    seen = [0, *widths[:-1]]
    student, _ = compress(full, widths, images, samples=5000, ranks=widths, input_ranks=seen)
    assert not student.maps
    for tap, expected in teacher(images[0], TAPS).items():
        with torch.no_grad():
            assert (student(images[0])[tap] - expected).norm() < 0.05 * expected.norm()


def test_low_rank_keeps_the_leading_components_of_the_responses(teacher):
    """The first layer's, whose inputs are exact, against a projection of the teacher's own responses by SVD."""
    full, widths, rank = teacher_network(teacher), teacher_widths(teacher), 3
    images = [torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    student, _ = compress(full, widths, images, samples=6 * 48 * 48, ranks=[rank] + [0] * 12)
    with torch.no_grad():
        inputs = torch.cat([(image - full.mean) / full.std for image in images]).half().float()
        y = full.convolve(0, inputs).transpose(0, 1).flatten(1).T.double()
        mean = y.mean(0)
        _, _, right = torch.linalg.svd(y - mean, full_matrices=False)
        expected = (y - mean) @ right[:rank].T @ right[:rank] + mean
        found = student.convolve(0, inputs).transpose(0, 1).flatten(1).T.double()
    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_few_combinations_of_inputs_are_the_best_ones():
    """Eckart and Young: what is lost of the results' energy is that of the singular values left out, and no more."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 7, 3, 3, generator=generator).double()
    inputs = torch.randn(400, 7, generator=generator).double() @ torch.randn(7, 7, generator=generator).double()
    moments = inputs.T @ inputs / 400
    narrow, matrix = leading_inputs(weight, moments, 3)
    lost = weight - torch.einsum("rqij,qc->rcij", narrow, matrix)
    energy = torch.einsum("rcij,cd,rdij->", lost, moments, lost)
    dense = weight.permute(0, 2, 3, 1).reshape(-1, 7) @ torch.linalg.cholesky(moments)
    assert float(energy) == pytest.approx(float(torch.linalg.svdvals(dense)[3:].square().sum()), rel=1e-9)
    torch.testing.assert_close(matrix @ moments @ matrix.T, torch.eye(3).double())


def test_a_student_of_low_rank_is_the_same_from_its_file(teacher, tmp_path):
    images = [torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    ranks, seen = [0] * 4 + [2] * 9, [0] * 5 + [1] * 8
    student, _ = compress(teacher_network(teacher), HALF, images, samples=3000, ranks=ranks, input_ranks=seen)
    save_student(tmp_path / "student.safetensors", student, {})
    again = load_student(tmp_path / "student.safetensors")
    assert (again.widths, again.ranks, again.input_ranks) == (student.widths, tuple(ranks), tuple(seen))
    for tap, expected in student(images[0]).items():
        error = again.project(tap, again(images[0])[tap]) - student.project(tap, expected)
        assert error.norm() < 1e-2 * student.project(tap, expected).norm()  # of half precision


def test_growth_adds_what_explains_most_of_the_error(teacher):
    """The first layer's, whose inputs are exact: one more column against least squares and SVD by NumPy."""
    full, widths, rank = teacher_network(teacher), teacher_widths(teacher), 3
    images = [torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    old, _ = compress(full, widths, images, samples=6 * 48 * 48, ranks=[rank] + [0] * 12)
    new = grow(old, full, images, [rank + 1] + [0] * 12, [0] * 13, samples=6 * 48 * 48)
    inputs = torch.cat([(image - full.mean) / full.std for image in images]).half().float()
    with torch.no_grad():
        y, mine, grown = (n.convolve(0, inputs).transpose(0, 1).flatten(1).T.double() for n in (full, old, new))
        patches = F.unfold(inputs, 3, padding=1).transpose(0, 1).flatten(1).T.double().numpy()
    wrong = ((y - mine) * ((y > 0) | (mine > 0))).numpy()
    explained = patches @ np.linalg.lstsq(patches, wrong, rcond=None)[0]
    _, _, right = np.linalg.svd(explained, full_matrices=False)
    added = (grown - mine).numpy()
    np.testing.assert_allclose(added, explained @ np.outer(right[0], right[0]), atol=1e-2 * np.abs(added).max())
    assert (grown.relu() - y.relu()).norm() < 0.9 * (mine.relu() - y.relu()).norm()


def test_growth_keeps_what_was_trained_and_errs_less(teacher):
    full, widths = teacher_network(teacher), teacher_widths(teacher)
    images = [torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    old, _ = compress(full, widths, images, 5000, ranks=[0, 2, *[2] * 11], input_ranks=[0, 0, 0, *[2] * 10])
    ranks, seen = [0, 2, 3, *[4] * 10], [0, 0, 0, 2, *[4] * 9]  # one layer keeps what it sees, one is as it was
    new = grow(old, full, images, ranks, seen, 5000)
    assert (new.ranks, new.input_ranks) == (tuple(ranks), tuple(seen))
    for index in range(13):
        r, q = old.convolution(index).weight.shape[:2]
        torch.testing.assert_close(new.convolution(index).weight[:r, :q], old.convolution(index).weight)
        assert new.convolution(index).weight[:r, q:].count_nonzero() == 0
    unseen = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        for tap, wanted in full(unseen).items():
            if tap not in ("relu1_1", "relu2_1"):
                errors = [(student(unseen)[tap] - wanted).norm() for student in (old, new)]
                assert errors[1] < 0.95 * errors[0], tap


@pytest.mark.parametrize(
    ("widths", "ranks", "seen", "message"),
    [
        ({3: 7}, {}, {}, "model.widths: must be the student's"),
        ({}, {5: 1}, {}, "model.ranks: must be at least the student's"),
        ({}, {1: 3}, {}, "and 0 where they are, got"),
        ({}, {5: 4}, {5: 1}, "model.input_ranks: must be at least the student's"),
        ({}, {}, {5: 4}, "model.ranks: must grow where input_ranks grow, got 2 for conv3_2"),
        ({}, {12: 4}, {}, "must stay for layers that have not all of VGG-19's channels, got 4 for conv5_1 with 12 of"),
    ],
)
def test_growth_that_cannot_be_is_one_line(teacher, tiny_weights, tmp_path, widths, ranks, seen, message):
    all_channels = [*teacher_widths(teacher)[:12], 12]
    base = {"widths": all_channels, "ranks": [0, 0, *[2] * 11], "input_ranks": [0, 0, 0, *[2] * 10]}
    images = [torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    student, _ = compress(teacher_network(teacher), base["widths"], images, 500, 0, base["ranks"], base["input_ranks"])
    save_student(tmp_path / "student.safetensors", student, {})
    for name, change in (("widths", widths), ("ranks", ranks or {4: 3}), ("input_ranks", seen)):
        base[name] = [change.get(index, value) for index, value in enumerate(base[name])]
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        Distillation(str(tiny_weights), str(tmp_path / "student.safetensors"), **base)
    assert "\n" not in str(caught.value)


def test_what_a_file_says_of_its_making_is_kept(teacher, tmp_path):
    path, student = tmp_path / "student.safetensors", teacher_network(teacher)
    now = {"training": "{}", "steps": "3"}
    for history, before in (("by hand", [{"training": "by hand"}]), ('[{"steps": "1"}]', [{"steps": "1"}]), ("7", [])):
        save_student(path, student, {**now, "history": history, "network": "left out"})
        assert earlier_runs(path) == [*before, now]
    save_student(path, student, {})
    assert earlier_runs(path) == []


def test_large_tensors_are_stored_in_eight_bits(teacher, tmp_path, monkeypatch):
    """In a student that would be too large in half precision."""
    monkeypatch.setattr("nst_lightning.distillation.storage.EIGHT_BITS_FROM", 100)
    student = teacher_network(teacher)

    def kinds_stored():
        save_student(tmp_path / "student.safetensors", student, {})
        with safe_open(tmp_path / "student.safetensors", "pt") as file:
            return {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118

    assert set(kinds_stored().values()) == {torch.float16}
    values = sum(value.numel() for value in student.convolutions.state_dict().values())
    monkeypatch.setattr("nst_lightning.distillation.storage.LARGEST_FILE", 2 * values - 1)
    kinds = kinds_stored()
    assert kinds["features.28.weight"] == torch.int8
    assert kinds["features.28.bias"] == torch.float16
    weight, found = (
        network.convolution(12).weight for network in (student, load_student(tmp_path / "student.safetensors"))
    )
    step = weight.flatten(1).abs().amax(1) / 127
    assert ((found - weight).flatten(1).abs().amax(1) <= 0.5001 * step).all()  # rounded to the nearest of 255 numbers


def test_compression_loses_less_with_more_channels(teacher):
    images = [torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    losses = []
    for widths in (HALF, [max(1, w // 2) for w in HALF]):
        _, reports = compress(teacher_network(teacher), widths, images, samples=5000)
        assert all(0 <= report.selection < 1 for report in reports)
        losses.append(sum(report.student for report in reports))
    assert losses[0] < losses[1]


def test_a_perfect_student_has_no_loss(tiny_weights, teacher):
    module = Distillation(str(tiny_weights), widths=teacher_widths(teacher))
    module.student = teacher_network(teacher)
    generator = torch.Generator().manual_seed(0)
    image, style = (torch.rand(1, 3, 48, 40, generator=generator) for _ in range(2))
    for name, value in module.compare(image, style).items():
        assert 0 <= float(value.detach()) + 1e-6 < 1e-5, name


def test_gradient_part_is_one_minus_the_cosine(tiny_weights, teacher, tmp_path, monkeypatch):
    """Against the same cosine from the extractor and the losses that ship, for one layer."""
    from nst_lightning.features import CompactVGG19
    from nst_lightning.losses import Gram
    from nst_lightning.objective.evaluator import Evaluator
    from nst_lightning.objective.objective import Objective

    images = [torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    student, _ = compress(teacher_network(teacher), HALF, images, samples=3000)
    path = tmp_path / "student.safetensors"
    save_student(path, student, {})
    gradients = []
    for extractor in (VGG19(str(tiny_weights)), CompactVGG19(str(path))):
        objective = Evaluator(Objective([Gram(["relu3_1"])]), extractor)
        objective.prepare(images[1], [(images[2], 1.0)])
        x = images[0].clone().requires_grad_()
        objective(x).loss.backward()
        gradients.append(x.grad.flatten())
    expected = 1 - float(F.cosine_similarity(*gradients, dim=0))
    module = Distillation(str(tiny_weights), str(path), widths=HALF)
    only = torch.tensor([1.0, 1, 1e-30, 1, 1])  # minus its logarithm is the weight
    monkeypatch.setattr("torch.rand", lambda *_, **__: only)
    assert float(module.compare(images[0], images[2])["gradient"].detach()) == pytest.approx(expected, abs=2e-3)


def test_inner_gradients_against_the_layers_that_follow(tiny_weights, teacher, monkeypatch):
    """Plain convolutions from each layer on, in float64, and the transpose of the map to the teacher's channels."""
    images = [torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    full = teacher_network(teacher)
    student, _ = compress(full, HALF, images, samples=3000)
    module = Distillation(str(tiny_weights), widths=HALF)
    module.student = student
    only = torch.tensor([1.0, 1, 1, 1, 1e-30])  # minus its logarithm is the weight: relu5_1 alone
    monkeypatch.setattr("torch.rand", lambda *_, **__: only)
    found = float(module.compare(images[0], images[2])["inner_gradient"].detach())

    def gradient(network, tap):
        network = copy.deepcopy(network).double()

        def gram(at, last, start=0):
            for index in range(start, len(NAMES)):
                at = network.convolve(index, at).relu()
                if index == last:
                    return at
                at = F.max_pool2d(at, 2) if NAMES[index] in LAST_OF_BLOCK else at
            projected = network.project("relu5_1", at)[0].flatten(1)
            return projected @ projected.T / projected.shape[1]

        last = NAMES.index(tap.replace("relu", "conv"))
        x, style = ((images[i].double() - network.mean) / network.std for i in (0, 2))
        at = gram(x, last).detach().requires_grad_()
        (gram(at, None, last + 1) - gram(style, None).detach()).square().sum().backward()
        return at.grad

    expected = []
    for tap in INNER_TAPS:
        theirs = torch.einsum("tc,bthw->bchw", student.maps[tap].detach().double(), gradient(full, tap))
        expected.append(1 - float(F.cosine_similarity(gradient(student, tap).flatten(), theirs.flatten(), dim=0)))
    assert found == pytest.approx(sum(expected) / len(expected), rel=1e-2)


@pytest.mark.slow
def test_training_by_command_improves_saves_and_resumes(tiny_weights, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["distill", "--model.teacher", str(tiny_weights), "--model.widths", str(HALF)]
    common += ["--data.photos", str(folders[0]), "--data.art", str(folders[1]), "--data.crop", "48"]
    common += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--model.runs_every", "4"]
    common += [
        "--trainer.log_every_n_steps",
        "1",
        "--model.learning_rate",
        "4e-3",
        "--model.gradient_weight",
        "0.05",
        "--model.save_every",
        "5",
    ]
    common += ["--model.compression_pairs", "4", "--model.run_evaluations", "12"]
    common += ["--data.steps", "40", "--data.held_out_pairs", "1", "--model.score_evaluations", "4"]
    assert main([*common, "--model.steps", "1", "--model.output", "start.safetensors"]) == 0
    assert main([*common, "--model.steps", "80", "--model.output", "trained.safetensors"]) == 0
    pairs = DistillationData(*map(str, folders), crop=48).held_out(1, 48)
    losses = []
    for name in ("start.safetensors", "trained.safetensors"):
        module = Distillation(str(tiny_weights), name, widths=HALF)
        losses.append({key: float(value.detach()) for key, value in module.compare(*pairs[0]).items()})
        assert module.student.widths == tuple(HALF)
    assert losses[1]["features"] + losses[1]["gram"] < losses[0]["features"] + losses[0]["gram"]
    with (tmp_path / "runs/distill/version_1/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["features"]] == list(range(80))
    scores = [row for row in rows if row["held_out_share"]]
    assert [int(row["step"]) for row in scores] == [39, 79]
    assert all(float(row[f"held_out_{key}"]) > 0 for row in scores for key in ("share", "share_unseen", "content"))
    module = Distillation(str(tiny_weights), "trained.safetensors", widths=[1] * len(HALF), output="again.safetensors")
    module.save()  # the student was given, not made: the file tells its widths, not those that were asked for
    with safe_open(module.hparams["output"], "pt") as file:
        assert json.loads(file.metadata()["training"])["widths"] == HALF
    (checkpoint,) = tmp_path.glob("runs/distill/version_1/checkpoints/last.ckpt")
    more = ["--model.steps", "120", "--ckpt_path", str(checkpoint), "--model.output", "resumed.safetensors"]
    assert main([*common, *more]) == 0
    trained, resumed = (load_student(Path(f"{name}.safetensors")).maps["relu3_1"] for name in ("trained", "resumed"))
    assert 0 < (trained - resumed).norm() < 0.1 * trained.norm()  # further, not begun anew


def test_a_student_grows_by_command_and_resumes(tiny_weights, teacher, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["distill", "--model.teacher", str(tiny_weights), "--model.widths", str(teacher_widths(teacher))]
    common += [
        "--data.photos",
        str(folders[0]),
        "--data.art",
        str(folders[1]),
        "--data.crop",
        "48",
        "--data.steps",
        "2",
    ]
    common += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--model.run_share", "0"]
    common += ["--model.compression_pairs", "4", "--data.held_out_pairs", "0", "--model.inner_gradient_weight", "1"]
    common += ["--model.learning_rate", "1e-6", "--model.steps", "2"]
    small, large = [0, *[2] * 12], [0, *[4] * 12]
    assert main([*common, "--model.ranks", str(small), "--model.output", "small.safetensors"]) == 0
    more = ["--model.ranks", str(large), "--model.student", "small.safetensors", "--model.output", "large.safetensors"]
    assert main([*common, *more]) == 0
    students = [load_student(tmp_path / f"{name}.safetensors") for name in ("small", "large")]
    assert [student.ranks for student in students] == [tuple(small), tuple(large)]
    with safe_open("large.safetensors", "pt") as file:
        facts = file.metadata()
    (first,) = json.loads(facts["history"])
    assert [json.loads(run["training"])["ranks"] for run in (first, facts)] == [small, large]
    assert (
        first["data"]
        == facts["data"]
        == ("19 photographs, 19 paintings and textures; crops of 48 px from short sides of 48 to 77 px")
    )
    pair = DistillationData(*map(str, folders), crop=48).held_out(1, 48)[0]
    losses = [
        Distillation(str(tiny_weights), f"{name}.safetensors", widths=HALF).compare(*pair)
        for name in ("small", "large")
    ]
    assert float(losses[1]["features"].detach()) < 0.8 * float(losses[0]["features"].detach())
    (checkpoint,) = tmp_path.glob("runs/distill/version_1/checkpoints/last.ckpt")
    assert main([*common, *more, "--ckpt_path", str(checkpoint), "--model.steps", "4"]) == 0
    again = load_student(tmp_path / "large.safetensors")
    torch.testing.assert_close(again.convolution(4).weight, students[1].convolution(4).weight, rtol=1e-2, atol=1e-3)


def test_a_perfect_student_scores_as_the_teacher(tiny_weights, teacher):
    pictures = [torch.rand(1, 3, 48, 40, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    for parameter in teacher.parameters():
        parameter.data = parameter.data.half().float()  # as a student's are kept
    student = shipped_form(teacher_network(teacher), torch.float32, torch.device("cpu"))
    scores = HeldOutScore(teacher, 4)(student, 0, *pictures)
    assert set(scores) == {"share", "share_unseen", "share_relu5_1", "content"}
    for name, value in scores.items():
        assert value == pytest.approx(1, abs=2e-3), name


def test_on_the_way_of_a_run_the_gap_is_relative_to_the_start(tiny_weights, teacher):
    images = [torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    module = Distillation(str(tiny_weights), widths=HALF, gradient_weight=0)
    module.student, _ = compress(teacher_network(teacher), HALF, images[:2], samples=3000)
    waypoints = module.run(images[3], images[4], 12)
    assert len(waypoints) == 3
    image = waypoints[-1].image

    def grams(extractor, picture):
        found = extractor(picture, STYLE_TAPS)
        if extractor is module.student:
            found = {tap: module.student.project(tap, value) for tap, value in found.items()}
        flat = {tap: value[0].flatten(1).double() for tap, value in found.items()}
        return {tap: value @ value.T / value.shape[1] for tap, value in flat.items()}

    with torch.no_grad():
        mine, aims = grams(module.student, image), grams(module.student, images[4])
        theirs, goal, before = (grams(teacher, picture) for picture in (image, images[4], images[3]))
    expected = [
        float(
            ((mine[tap] - aims[tap]) - (theirs[tap] - goal[tap])).square().sum()
            / ((before[tap] - goal[tap]).square().sum() + 1e-4 * goal[tap].square().sum())
        )
        for tap in STYLE_TAPS
    ]
    assert float(module.compare(*waypoints[-1])["gap"].detach()) == pytest.approx(sum(expected) / 5, rel=1e-3)


def test_held_out_pictures_are_never_trained_on(folders):
    train, held_out = split_folder(folders[0], argument="photos")
    assert len(train) == 19
    assert [path.name for path in held_out] == ["19.png"]
    assert not set(train) & set(held_out)


def test_pairs_are_reproducible(folders):
    data = DistillationData(*map(str, folders), crop=32)
    one, same, other = data.pair(3), data.pair(3), data.pair(4)
    assert torch.equal(one.image, same.image)
    assert not torch.equal(one.image, other.image)
    assert one.image.shape == one.style.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.crop", "8"], "data.crop: must be at least 32, got 8"),
        (["--data.art", "/nowhere"], "data.art: must be a folder with at least 20 pictures, got 0"),
        (["--model.widths", "[1,2]"], "model.widths: must be 13 numbers"),
        (["--model.ranks", "[1,2]"], "model.ranks: must be 13 numbers of at least 0, got [1, 2]"),
        (["--model.input_ranks", "[0,0,8]"], "model.input_ranks: must be 13 numbers of at least 0, got [0, 0, 8]"),
        (
            ["--model.input_ranks", "[0,2,0,0,0,0,0,0,0,0,0,0,0]"],
            "model.input_ranks: must be 0 where model.ranks is, got [0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]",
        ),
        (["--model.student", "none.safetensors"], "cannot be read as a student's weights"),
    ],
)
def test_errors_of_training_are_one_line(tiny_weights, folders, capsys, arguments, message):
    common = ["distill", "--model.teacher", str(tiny_weights), "--model.widths", str(HALF)]
    common += ["--data.photos", str(folders[0]), "--data.art", str(folders[1])]
    assert main([*common, *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_widths_beyond_the_teachers_are_refused(tiny_weights):
    with pytest.raises(UserError, match="numbers from 1 to"):
        Distillation(str(tiny_weights), widths=[64] * 13)
