"""The LightningModule: one parameter, stages, checkpoints, optimisers."""

from __future__ import annotations

import warnings

import pytest
import torch
from helpers import QUIET
from lightning.pytorch import Callback, Trainer

from nst_lightning import Stage, StyleTransfer, StyleTransferData
from nst_lightning.callbacks import Faults, Snapshots
from nst_lightning.cli import main
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.features import VGG19
from nst_lightning.hardware.memory import resident_memory
from nst_lightning.images import read_image
from nst_lightning.losses import Content, Gram, Term
from nst_lightning.objective import evaluator
from nst_lightning.optim import LBFGS


class Losses(Callback):
    """Collect the loss, stage and size of each evaluation."""

    def __init__(self):
        self.values, self.stages, self.sizes = [], [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.values.append(float(module.evaluation.loss.detach()))
        self.stages.append(module.current_stage)
        self.sizes.append(tuple(module.image.shape[-2:]))


def build(weights, **options):
    return StyleTransfer(extractor=VGG19(str(weights)), **options)


def fit(module, pair, tmp_path, *callbacks, ckpt_path=None, size=48, **settings):
    losses = Losses()
    options = {**QUIET, "default_root_dir": str(tmp_path), **settings}
    trainer = Trainer(callbacks=[losses, *callbacks], **options)
    trainer.fit(module, datamodule=StyleTransferData(str(pair[0]), str(pair[1]), size=size), ckpt_path=ckpt_path)
    return losses


def test_the_image_is_the_only_parameter(tiny_weights, pair, tmp_path):
    module = build(tiny_weights, evaluations=2)
    fit(module, pair, tmp_path)
    trainable = [name for name, p in module.named_parameters() if p.requires_grad]
    assert trainable == ["image"]
    assert module.image.shape == (1, 3, 36, 48)
    assert "extractor" in dict(module.named_modules())
    assert not any(p.requires_grad for p in module.extractor.parameters())
    assert len(module.trainer.optimizers) == 1


def test_training_step_returns_the_weighted_loss(tiny_weights, pair, tmp_path):
    module = build(tiny_weights, evaluations=1)
    fit(module, pair, tmp_path)
    loss = module.training_step(module.trainer.train_dataloader.batch, 0)
    assert loss.shape == ()
    assert loss.requires_grad
    torch.testing.assert_close(loss.detach(), module.evaluation.parts.sum())


def test_one_step_is_one_evaluation(tiny_weights, pair, tmp_path):
    losses = fit(module := build(tiny_weights, evaluations=7), pair, tmp_path)
    assert len(losses.values) == 7 == module.trainer.global_step
    assert losses.values[-1] < losses.values[0]


def test_max_steps_cuts_short(tiny_weights, pair, tmp_path):
    assert len(fit(build(tiny_weights, evaluations=9), pair, tmp_path, max_steps=4).values) == 4


def test_stages_are_epochs(tiny_weights, pair, tmp_path):
    module = build(tiny_weights, stages=[Stage(3, 0.5), Stage(4)])
    losses = fit(module, pair, tmp_path)
    assert losses.stages == [0] * 3 + [1] * 4
    assert losses.sizes == [(18, 24)] * 3 + [(36, 48)] * 4
    assert module.trainer.current_epoch == 2
    assert module.total_evaluations == 7


def test_a_stage_begins_with_the_curvature_of_the_one_before(tiny_weights, pair, tmp_path, monkeypatch):
    measured, curvature = [], LBFGS.curvature
    monkeypatch.setattr(LBFGS, "curvature", lambda self: measured.append(curvature(self)) or measured[-1])
    module = build(tiny_weights, stages=[Stage(4, 0.5), Stage(1)])
    fit(module, pair, tmp_path)
    (of_first_stage,) = measured
    assert len(of_first_stage.log_factors) > 3
    (group,) = module.trainer.optimizers[0].param_groups
    assert group["prior"] == list(of_first_stage)


def test_a_run_cut_short_in_a_coarse_stage_has_a_full_picture(tiny_weights, pair, tmp_path):
    module = build(tiny_weights, stages=[Stage(3, 0.5), Stage(4)])
    fit(module, pair, tmp_path, max_steps=2)
    assert module.picture().shape == (1, 3, 18, 24)
    assert module.final_picture().shape == (1, 3, 36, 48)


def test_only_the_change_is_enlarged(tiny_weights, pair, tmp_path):
    """Without a change so far, the next stage starts from the content at its own size, not from an enlarged one."""
    module = build(tiny_weights, stages=[Stage(1, 0.5), Stage(1)])
    fit(module, pair, tmp_path, max_steps=1)
    with torch.no_grad():
        module.image.copy_(module._data.stage_images(0.5).content)
    difference = (module.final_picture() - module._data.stage_images().content).abs()
    assert float(difference.max()) < 0.1
    assert float(difference.mean()) < 0.01


@pytest.mark.parametrize(
    "stages", [[Stage(8)], [Stage(4, 0.5), Stage(4)], [Stage(2, 0.5), Stage(6)], [Stage(6, 0.5), Stage(2)]]
)
@pytest.mark.parametrize("at", [2, 4, 6])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tiny_weights, pair, tmp_path, stages, at):
    whole = build(tiny_weights, stages=stages)
    losses = fit(whole, pair, tmp_path, Snapshots(2, checkpoint=True))
    checkpoint = tmp_path / "snapshots" / f"{at:06d}.ckpt"
    resumed = build(tiny_weights, stages=stages)
    rest = fit(resumed, pair, tmp_path / "second", Snapshots(2, checkpoint=True), ckpt_path=str(checkpoint))
    assert rest.values == losses.values[at:]
    assert torch.equal(resumed.picture(), whole.picture())


def test_a_checkpoint_holds_no_network_and_loads_without_code(tiny_weights, pair, tmp_path):
    fit(build(tiny_weights, evaluations=2), pair, tmp_path, Snapshots(2, checkpoint=True))
    path = tmp_path / "snapshots" / "000002.ckpt"
    content = torch.load(path, weights_only=True)
    assert list(content["state_dict"]) == ["image"]
    assert content["state_dict"]["image"].shape == (1, 3, 36, 48)
    loaded = StyleTransfer.load_from_checkpoint(path, extractor=VGG19(str(tiny_weights)))
    assert torch.equal(loaded.image.detach(), content["state_dict"]["image"])


def test_a_checkpoint_of_the_command_line_rebuilds_its_model(use_tiny_weights, pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "32"]
    terms = "[{class_path: Content, init_args: {weight: 0.25}}, {class_path: Gram, init_args: {layers: [relu2_1]}}]"
    snapshots = "[{class_path: Snapshots, init_args: {every: 2, checkpoint: true}}]"
    extra = ["--model.evaluations", "2", f"--model.terms={terms}", f"--trainer.callbacks={snapshots}"]
    assert main(["fit", *arguments, *extra, "--model.strength", "2", "--trainer.accelerator", "cpu"]) == 0
    (path,) = tmp_path.rglob("snapshots/*.ckpt")
    torch.load(path, weights_only=True)
    loaded = StyleTransfer.load_from_checkpoint(path)
    assert loaded.objective.strength == 2
    content, gram = loaded.objective.terms
    assert (content.weight, list(gram.layers)) == (0.25, ["relu2_1"])
    assert loaded.image.shape == (1, 3, 24, 32)


def test_a_checkpoint_made_from_python_loads_without_arguments(use_tiny_weights, pair, tmp_path):
    module = StyleTransfer(2, strength=3.0)
    fit(module, pair, tmp_path, Snapshots(2, checkpoint=True))
    loaded = StyleTransfer.load_from_checkpoint(tmp_path / "snapshots" / "000002.ckpt")
    assert torch.equal(loaded.picture(), module.picture())
    assert (loaded.total_evaluations, loaded.objective.strength) == (2, 3.0)


def test_a_checkpoint_of_the_command_line_keeps_stages_extractor_and_optimiser(
    use_tiny_weights, pair, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"]
    model = ["--model.stages=[{evaluations: 1, scale: 0.5}, {evaluations: 1}]", "--model.extractor.pooling=average"]
    optimiser = ["--model.optimizer=torch.optim.Adam", "--model.optimizer.lr=0.125"]
    snapshots = "--trainer.callbacks=[{class_path: Snapshots, init_args: {every: 2, checkpoint: true}}]"
    assert main(["fit", *pictures, *model, *optimiser, snapshots, "--trainer.accelerator", "cpu"]) == 0
    (path,) = tmp_path.rglob("snapshots/*.ckpt")
    loaded = StyleTransfer.load_from_checkpoint(path)
    assert loaded.stages == [Stage(1, 0.5), Stage(1)]
    assert loaded.extractor.pooling == "average"
    adam = loaded.configure_optimizers()
    assert isinstance(adam, torch.optim.Adam)
    assert adam.param_groups[0]["lr"] == 0.125


def test_a_state_dict_of_something_else_is_refused(tiny_weights):
    with pytest.raises(RuntimeError, match=r'(?s)Missing.*"image".*Unexpected.*"other"'):
        build(tiny_weights, evaluations=1).load_state_dict({"other": torch.zeros(1)})


def test_adam_works_too(tiny_weights, pair, tmp_path):
    module = build(tiny_weights, evaluations=12, optimizer=lambda p: torch.optim.Adam(p, lr=0.02))
    losses = fit(module, pair, tmp_path)
    assert isinstance(module.trainer.optimizers[0], torch.optim.Adam)
    assert losses.values[-1] < 0.8 * losses.values[0]


def test_torch_lbfgs_is_set_to_one_evaluation_a_step(tiny_weights, pair, tmp_path):
    losses = fit(build(tiny_weights, evaluations=6, optimizer=torch.optim.LBFGS), pair, tmp_path)
    assert len(losses.values) == 6
    assert losses.values[-1] < losses.values[0]


def test_a_line_search_is_refused(tiny_weights):
    with pytest.raises(UserError, match="line_search_fn: must be null, got strong_wolfe"):
        build(tiny_weights, optimizer=lambda p: torch.optim.LBFGS(p, line_search_fn="strong_wolfe"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gradient_clip_val": 1.0}, "trainer.gradient_clip_val: must be left out, got 1.0"),
        ({"accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches: must be 1, got 2"),
        ({"precision": "16-true"}, "trainer.precision: must be auto"),
    ],
)
def test_settings_that_cannot_work(tiny_weights, pair, tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        fit(build(tiny_weights, evaluations=2), pair, tmp_path, **settings)


def test_a_trainer_without_pictures(tiny_weights, tmp_path):
    trainer = Trainer(**QUIET)
    with pytest.raises(UserError, match="datamodule: must be a StyleTransferData"):
        trainer.fit(build(tiny_weights, evaluations=1), train_dataloaders=[0])


class Bad(Term):
    """NaN at one evaluation."""

    sees_image = True

    def __init__(self, at):
        super().__init__([])
        self.at, self.calls = at, 0

    def image_loss(self, image, content, weights):
        self.calls += 1
        return image.mean() * (float("nan") if self.calls == self.at else 0.0)


def test_one_evaluation_that_fails_does_not_cost_the_picture(tiny_weights, pair, tmp_path):
    module = build(tiny_weights, evaluations=24, terms=[Content(weight=0.5), Gram(), Bad(10)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses = fit(module, pair, tmp_path, Faults(5))
    (said,) = [str(warning.message) for warning in caught if issubclass(warning.category, UserNotice)]
    assert "up to evaluation 10: 1 with a loss or gradient that was not finite" in said
    assert losses.values[9] != losses.values[9]
    assert torch.isfinite(module.image).all()
    assert losses.values[-1] < losses.values[8]


class Never(Bad):
    """NaN at every evaluation."""

    def image_loss(self, image, content, weights):
        return image.mean() * float("nan")


@pytest.mark.parametrize("term", [Bad(1), Never(0)])
def test_without_a_finite_evaluation_before_it_the_start_is_kept(tiny_weights, pair, tmp_path, term):
    module = build(tiny_weights, evaluations=3, terms=[Content(), Gram(), term])
    fit(module, pair, tmp_path)
    assert torch.isfinite(module.image).all()
    if isinstance(term, Never):
        assert torch.equal(module.picture(), module._data.start_image())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_precisions(tiny_weights, pair, tmp_path, precision):
    module = build(tiny_weights, evaluations=4)
    losses = fit(module, pair, tmp_path, precision=precision)
    assert module.image.dtype == (torch.float64 if precision == "64-true" else torch.float32)
    expected = {"bf16-mixed": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    assert module.extractor.convolutions[0].weight.dtype == expected
    assert losses.values[-1] < losses.values[0]


def test_start_from_white_is_balanced_by_the_content(tiny_weights, pair, tmp_path):
    module = build(tiny_weights, evaluations=1)
    trainer = Trainer(**QUIET)
    data = StyleTransferData(str(pair[0]), str(pair[1]), size=48, init="white")
    trainer.fit(module, datamodule=data)
    parts = module(data.stage_images().content).parts
    torch.testing.assert_close(parts, torch.tensor([0.0, 1, 1, 1, 1, 1]), rtol=1e-4, atol=1e-5)


def test_the_default_optimiser_is_ours(tiny_weights):
    assert isinstance(build(tiny_weights).configure_optimizers(), LBFGS)


def test_tiles_change_nothing_and_a_run_resumes_in_them(tiny_weights, pair, tmp_path):
    stages = [Stage(3, 0.5), Stage(3)]
    options = {"stages": stages, "tile": 64}
    exact = {"precision": "64-true"}
    whole = fit(build(tiny_weights, stages=stages, tile=None), pair, tmp_path / "whole", size=160, **exact)
    module = build(tiny_weights, **options)
    tiled = fit(module, pair, tmp_path, Snapshots(2, checkpoint=True), size=160, **exact)
    assert [plan.tile for plan in module.plans] == [64, 64]
    torch.testing.assert_close(torch.tensor(tiled.values), torch.tensor(whole.values), rtol=1e-8, atol=0)
    for step in (2, 4):
        checkpoint = str(tmp_path / "snapshots" / f"{step:06d}.ckpt")
        resumed = build(tiny_weights, **options)
        fit(resumed, pair, tmp_path / f"from_{step}", ckpt_path=checkpoint, size=160, **exact)
        assert torch.equal(resumed.image, module.image)


def test_a_stage_may_have_a_network_of_its_own(tiny_weights, pair, tmp_path):
    own = VGG19(str(tiny_weights), pooling="average")
    module = build(tiny_weights, stages=[Stage(2, 0.5, extractor=own), Stage(2)])
    seen = []

    class Networks(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            seen.append(module.evaluator.extractor.pooling)

    fit(module, pair, tmp_path, Networks(), Snapshots(1, checkpoint=True))
    assert seen == ["average", "average", "max", "max"]
    assert "image" in module.state_dict()
    assert not [key for key in module.state_dict() if "extractor" in key]
    resumed = build(tiny_weights, stages=[Stage(2, 0.5, extractor=own), Stage(2)])
    fit(resumed, pair, tmp_path / "second", ckpt_path=str(tmp_path / "snapshots" / "000001.ckpt"))
    assert torch.equal(resumed.image, module.image)


def test_a_stages_network_must_have_the_terms_layers(tiny_weights):
    class Shallow(VGG19):
        strides = {"relu1_1": 1}  # noqa: RUF012

    with pytest.raises(UserError, match="no layer 'relu2_1' in Shallow"):
        build(tiny_weights, stages=[Stage(1, 0.5, extractor=Shallow(str(tiny_weights))), Stage(1)])


def test_little_memory_shortens_the_history(tiny_weights, pair, tmp_path):
    taken = resident_memory("cpu") / 2**30
    module = build(tiny_weights, evaluations=40, memory=0.3 + taken)
    fit(module, pair, tmp_path, size=800, max_steps=1)
    (plan,) = module.plans
    group = module.trainer.optimizers[0].param_groups[0]
    assert plan.choice > 0
    assert (group["history_size"], group["history_dtype"]) == (module.planner.history(plan)["history_size"], "bfloat16")
    taken = resident_memory("cpu") / 2**30
    with pytest.raises(UserError, match=r"data\.size: needs"):
        fit(build(tiny_weights, evaluations=2, memory=0.1 + taken), pair, tmp_path, size=800)


def test_a_stage_is_given_up_before_the_pictures_of_the_next_one_are_made(tiny_weights, pair, tmp_path, monkeypatch):
    """What its optimiser holds may be as large as all that is to come."""
    module = build(tiny_weights, stages=[Stage(3, 0.5), Stage(2)])
    held, stage_images = [], StyleTransferData.stage_images

    def look(self, scale):
        held.append((scale, len(module.trainer.optimizers[0].state), module.evaluator is None))
        return stage_images(self, scale)

    monkeypatch.setattr(StyleTransferData, "stage_images", look)
    fit(module, pair, tmp_path)
    assert held == [(0.5, 0, True), (1.0, 0, True)]
    (state,) = module.trainer.optimizers[0].state.values()
    assert len(state["history"]) == 2  # of a pair, as there are two evaluations


@pytest.mark.parametrize(("options", "words"), [({"tile": 8}, "model.tile: must be"), ({"memory": 0}, "model.memory")])
def test_tiles_and_memory_that_make_no_sense(tiny_weights, options, words):
    with pytest.raises(UserError, match=words):
        build(tiny_weights, **options)


def test_snapshots_of_large_pictures_are_small(tiny_weights, pair, tmp_path):
    module = build(tiny_weights, evaluations=2)
    fit(module, pair, tmp_path, Snapshots(1, longest=40))
    assert module.picture(40).shape == (1, 3, 30, 40)
    assert module.picture(400).shape == module.picture().shape == (1, 3, 36, 48)
    assert read_image(tmp_path / "snapshots" / "000001.png").pixels.shape == (1, 3, 30, 40)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_memory_that_runs_out_leads_to_smaller_tiles(tiny_weights, pair, tmp_path, monkeypatch, where):
    whole = build(tiny_weights, evaluations=3, tile=None)
    expected = fit(whole, pair, tmp_path, size=300, precision="64-true")
    module = build(tiny_weights, evaluations=3)
    whole_image = evaluator.evaluate_whole

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise torch.OutOfMemoryError("CUDA out of memory")

    def fails(comparison, image):
        if where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory")
        loss, parts = whole_image(comparison, image)
        return type(expected_evaluation)(Fails.apply(loss), parts)

    expected_evaluation = whole.evaluation
    monkeypatch.setattr(evaluator, "evaluate_whole", fails)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses = fit(module, pair, tmp_path, size=300, precision="64-true")
    notices = [str(w.message) for w in caught if issubclass(w.category, UserNotice)]
    assert notices == ["memory ran out; going on in tiles of 256 px"]
    assert [plan[0] for plan in module.planner.saved()] == [256]  # which a checkpoint keeps
    torch.testing.assert_close(torch.tensor(losses.values), torch.tensor(expected.values), rtol=1e-8, atol=0)
    with pytest.raises(
        UserError, match=r"memory: ran out at 300x225 px with a history of 20 pairs; set model\.tile to 256"
    ):
        fit(build(tiny_weights, evaluations=3, tile=None), pair, tmp_path, size=300)
