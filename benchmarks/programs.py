"""What is measured: one evaluation and update of the project and of the baseline, on the same pictures and weights."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial

import baseline
import torch
import yaml
from torch import Tensor

from nst_lightning import losses
from nst_lightning.config.presets import beside_package
from nst_lightning.data.module import StyleTransferData
from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.hardware.accelerator import compute_dtype, describe
from nst_lightning.hardware.memory import freed_memory_kept
from nst_lightning.hardware.numerics import tf32_allowed
from nst_lightning.losses import Content, Gram, Term
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective, default_terms
from nst_lightning.optim import LBFGS

EXTRACTORS = {
    "vgg19": partial(VGG19, units="normalised"),
    "compact": CompactVGG19,
    "narrow": partial(CompactVGG19, "narrow"),
}
OPTIMIZERS = {
    "lbfgs": LBFGS,
    "lbfgs in pixels": partial(LBFGS, spectral_exponent=0.0),
    "lbfgs, bfloat16 history": partial(LBFGS, history_dtype="bfloat16"),
    "torch lbfgs": partial(torch.optim.LBFGS, max_iter=1, history_size=100, tolerance_grad=-1, tolerance_change=-1),
    "adam": partial(torch.optim.Adam, lr=0.02),
}

_SETTINGS = contextlib.ExitStack()  # until the process ends
atexit.register(_SETTINGS.close)

Step = Callable[[], Tensor | float]
Build = Callable[[], tuple[Step, Tensor]]


def pictures(size: int, accelerator: str) -> tuple[Tensor, Tensor]:
    """The demo's content and style with a long side of `size` pixels: (1, 3, H, W) in [0, 1] each."""
    data = StyleTransferData(content="demo:content", style="demo:style", size=size, side="long")
    data.setup("fit")
    images = data.stage_images(1.0)
    return images.content.to(accelerator), images.styles[0][0].to(accelerator)


def baseline_step(size: int, accelerator: str) -> tuple[Step, Tensor]:
    """The baseline's evaluation, and its image."""
    torch.backends.cudnn.allow_tf32 = True  # as PyTorch comes, and scripts leave it
    extractor = EXTRACTORS["vgg19"]()
    weights = [(layer.weight, layer.bias) for layer in extractor.convolutions]
    network = baseline.Network(weights, extractor.mean, extractor.std).to(accelerator)
    return baseline.make_step(network, *pictures(size, accelerator))


def our_step(
    size: int,
    accelerator: str,
    precision: str,
    optimizer: str = "lbfgs",
    extractor: str = "vgg19",
    objective: str = "default",
    order: torch.memory_format | None = None,
) -> tuple[Step, Tensor]:
    """The project's evaluation, without Lightning, and its image; it reads nothing back.

    Args:
        size: Long side in pixels.
        accelerator: cpu, cuda, mps or xpu.
        precision: 32-true or bf16-mixed.
        optimizer: A key of `OPTIMIZERS`.
        extractor: A key of `EXTRACTORS`.
        objective: default (balanced), baseline (the same function of the image as the baseline's), or a preset's name.
        order: Of the dimensions of all that the network's convolutions take and return; None: what they choose.
    """
    _SETTINGS.enter_context(freed_memory_kept())  # as `nst fit` has them
    _SETTINGS.enter_context(tf32_allowed(False))
    network = EXTRACTORS[extractor]().to(accelerator)
    network.set_compute_dtype(compute_dtype(precision))
    whole = Evaluator(Objective(terms_of(objective)), network)
    content, style = pictures(size, accelerator)
    whole.prepare(content, [(style, 1.0)])
    if order is not None:  # after `prepare`, with which they have chosen
        network._order = order
        network.convolutions.to(memory_format=order)
    image = content.clone().requires_grad_()
    optimiser = OPTIMIZERS[optimizer]([image])

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = whole(image).loss
        loss.backward()
        return loss.detach()

    return partial(optimiser.step, closure), image


@contextlib.contextmanager
def graphs(wanted: bool) -> Iterator[None]:
    """Say whether steps that are first made within are to be recorded, on a device that can."""
    before = os.environ.get("NST_CUDA_GRAPHS")
    os.environ["NST_CUDA_GRAPHS"] = str(int(wanted))
    try:
        yield
    finally:
        if before is None:
            del os.environ["NST_CUDA_GRAPHS"]
        else:
            os.environ["NST_CUDA_GRAPHS"] = before


def terms_of(objective: str) -> list[Term]:
    """The terms that an objective of `our_step` has."""
    if objective == "default":
        return default_terms()
    if objective == "baseline":
        return [Content(normalization="released"), Gram(weight=baseline.STYLE_WEIGHT, normalization="released")]
    text = (beside_package("configs") / f"{objective}.yaml").read_text(encoding="utf-8")
    named = [(term["class_path"].split(".")[-1], term["init_args"]) for term in yaml.safe_load(text)["model"]["terms"]]
    return [getattr(losses, name)(**arguments) for name, arguments in named]


def product_step(accelerator: str, dtype: str, side: int | None = None) -> tuple[Step, int]:
    """A large product of two square matrices, and its operations: what the hardware can do."""
    n = side or (2048 if accelerator == "cpu" else 8192)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(n, n, generator=generator).to(accelerator, getattr(torch, dtype)) for _ in range(2))

    def step() -> Tensor:
        product = torch.mm(a, b)
        synchronize(accelerator)
        return product

    return step, 2 * n**3


def synchronize(accelerator: str) -> None:
    """Wait for the device, so that a time is the time of the work and not of handing it over."""
    if accelerator != "cpu":
        torch.get_device_module(accelerator).synchronize()


def precisions(accelerator: str) -> list[str]:
    """Precisions in which a device has native arithmetic."""
    return ["32-true", *(["bf16-mixed"] if describe(accelerator).bfloat16 else [])]
