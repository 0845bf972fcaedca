"""The Lightning run against plain PyTorch loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import QUIET
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file

from nst_lightning import StyleTransfer, StyleTransferData
from nst_lightning.features import VGG19
from nst_lightning.losses import Content, Gram
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective
from nst_lightning.optim import LBFGS

POOL_AFTER = (1, 3, 7, 11)  # convolutions that a pooling layer follows
STYLE, CONTENT = (0, 2, 4, 8, 12), 9


class Losses(Callback):
    """Collect the loss of each evaluation."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, *_):
        self.values.append(float(module.evaluation.loss.detach()))


def terms(scale=1.0):
    return [
        Content(["relu4_2"], scale, "released"),
        Gram([f"relu{block}_1" for block in range(1, 6)], 1000 * scale, "released"),
    ]


def lightning_run(weights, pair, evaluations=20, size=48, scale=1.0, optimizer=LBFGS, **trainer):
    # Rounding of the last bit grows to percents in twenty evaluations, so both runs must convolve the same way.
    extractor = VGG19(str(weights), convolution="direct")
    module = StyleTransfer(evaluations, terms=terms(scale), extractor=extractor, optimizer=optimizer)
    data = StyleTransferData(str(pair[0]), str(pair[1]), size=size)
    losses = Losses()
    Trainer(**{**QUIET, "callbacks": [losses], **trainer}).fit(module, datamodule=data)
    return losses.values, module.picture(), data.stage_images()


def plain_run(weights, content, style, optimizer, evaluations=20):
    """The released setting in a loop that shares nothing with the package but the optimiser given."""
    state = load_file(weights)
    indices = sorted(int(key.split(".")[1]) for key in state if key.endswith("weight"))
    layers = [(state[f"features.{i}.weight"].float(), state[f"features.{i}.bias"].float()) for i in indices][:13]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def features(x):
        x, found = (x - mean) / std, []
        for index, (weight, bias) in enumerate(layers):
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
            found.append(x)
            if index in POOL_AFTER:
                x = F.max_pool2d(x, 2)
        return found

    def gram(f):
        flat = f.flatten(2)[0]
        return flat @ flat.T / flat.shape[1]

    with torch.no_grad():
        target = features(content)[CONTENT]
        grams = {i: gram(features(style)[i]) for i in STYLE}
    image = content.clone().requires_grad_()
    opt, losses = optimizer([image]), []
    for _ in range(evaluations):

        def closure():
            opt.zero_grad()
            found = features(image)
            loss = F.mse_loss(found[CONTENT], target)
            for i in STYLE:
                loss = loss + 1e3 / len(grams[i]) ** 2 * F.mse_loss(gram(found[i]), grams[i])
            loss.backward()
            losses.append(float(loss.detach()))
            return loss

        opt.step(closure)
    return losses, image.detach()


def test_losses_equal_a_plain_loop(tiny_weights, pair):
    ours, _, images = lightning_run(tiny_weights, pair)
    plain, _ = plain_run(tiny_weights, images.content, images.styles[0][0], LBFGS)
    assert ours[-1] < 0.5 * ours[0]
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(plain), rtol=1e-6, atol=0)


def test_losses_equal_a_plain_loop_with_real_weights(real_weights, pair):
    ours, _, images = lightning_run(real_weights, pair, size=64)
    plain, _ = plain_run(real_weights, images.content, images.styles[0][0], LBFGS)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(plain), rtol=1e-6, atol=0)


@pytest.mark.parametrize("optimizer", [LBFGS, lambda p: torch.optim.Adam(p, lr=0.02)])
def test_the_same_arithmetic_is_bitwise_the_same(tiny_weights, pair, optimizer):
    ours, picture, images = lightning_run(tiny_weights, pair, optimizer=optimizer)
    objective = Evaluator(Objective(terms()), VGG19(str(tiny_weights)))
    objective.prepare(images.content, images.styles)
    image = images.content.clone().requires_grad_()
    opt, plain = optimizer([image]), []
    for _ in range(20):

        def closure():
            opt.zero_grad()
            loss = objective(image).loss
            loss.backward()
            plain.append(float(loss.detach()))
            return loss

        opt.step(closure)
    assert ours == plain
    assert torch.equal(picture, image.detach().clamp(0, 1))


def test_twenty_steps_of_torch_lbfgs_are_one_step_of_twenty(tiny_weights, pair):
    """A torch.optim.LBFGS of 20 iterations a step is set to one evaluation a step, with the same trajectory."""
    ours, _, images = lightning_run(tiny_weights, pair, optimizer=torch.optim.LBFGS)
    assert len(ours) == 20

    class AllAtOnce(torch.optim.LBFGS):
        def step(self, closure):
            return super().step(closure) if not self.state else None

    plain, _ = plain_run(
        tiny_weights,
        images.content,
        images.styles[0][0],
        lambda p: AllAtOnce(p, max_iter=20, max_eval=1000, tolerance_grad=-1, tolerance_change=-1),
    )
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(plain), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_units_of_the_loss_do_not_matter(tiny_weights, pair, scale):
    _, picture, _ = lightning_run(tiny_weights, pair, precision="64-true")
    losses, scaled, _ = lightning_run(tiny_weights, pair, precision="64-true", scale=scale)
    assert (picture - scaled).abs().max() < 1e-6
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_units_of_the_loss_matter_by_rounding_only_in_float32(tiny_weights, pair, scale):
    _, picture, _ = lightning_run(tiny_weights, pair, evaluations=4)
    _, scaled, _ = lightning_run(tiny_weights, pair, evaluations=4, scale=scale)
    assert (picture - scaled).abs().max() < 2e-3
