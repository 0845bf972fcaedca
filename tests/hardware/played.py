"""Runs on devices that a CPU plays."""

from __future__ import annotations

from pathlib import Path

import yaml
from helpers import QUIET, rand_image

from nst_lightning import StyleTransfer, StyleTransferData, losses
from nst_lightning.callbacks import Faults, Metrics, Progress, Snapshots, Watch
from nst_lightning.config.presets import beside_package
from nst_lightning.data.schedule import Stage
from nst_lightning.engine.trainer import StyleTrainer
from nst_lightning.features import VGG19
from nst_lightning.losses import (
    NNFM,
    Content,
    CosineContent,
    Grain,
    Gram,
    Histogram,
    NearestNeighbour,
    Palette,
    RelaxedEMD,
    SelfSimilarity,
    SlicedWasserstein,
    Term,
    TotalVariation,
)
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective, default_terms
from nst_lightning.optim import LBFGS


def painterly() -> list[Term]:
    """The terms of the preset, as its file has them."""
    text = (beside_package("configs") / "painterly.yaml").read_text(encoding="utf-8")
    terms = yaml.safe_load(text)["model"]["terms"]
    return [getattr(losses, term["class_path"].rpartition(".")[2])(**term["init_args"]) for term in terms]


def steps(device: str, terms: list[Term], weights: Path, tile: int | None = None, count: int = 3, visit=None):
    """Losses of some steps; what is noted is of all but the first: before, targets and tables are made, and read."""
    network = VGG19(str(weights)).to(device)
    evaluate = Evaluator(Objective(terms), network, tile)
    content, style = rand_image(48, 96).to(device), rand_image(40, 40, seed=1).to(device)
    evaluate.prepare(content, [(style, 1.0)])
    image = content.clone().requires_grad_()
    optimizer = LBFGS([image])

    def closure():
        optimizer.zero_grad()
        loss = evaluate(image).loss
        loss.backward()
        return loss.detach()

    losses = [optimizer.step(closure)]
    if visit is not None:
        visit.forget()
    losses += [optimizer.step(closure) for _ in range(count)]
    reads = {} if visit is None else dict(visit.reads)
    return [float(loss) for loss in losses], reads


TERMS = {
    "default": default_terms,
    "painterly": painterly,
    "histogram": lambda: [Content(), Histogram()],
    "nnfm": lambda: [NNFM()],
    "similarity": lambda: [SelfSimilarity(), CosineContent(), Gram()],
    "transport": lambda: [RelaxedEMD(), Palette(), Grain()],
    "neighbour": lambda: [NearestNeighbour()],
    "sliced": lambda: [SlicedWasserstein()],
    "gram and tv": lambda: [Gram(), TotalVariation()],
}


def fit(
    folder: Path, pair, weights: Path, terms: list[Term], evaluations: int, accelerator: str = "mps", last=3, size=48
):
    """Run two stages as `nst fit` does, with callbacks that read."""
    data = StyleTransferData(str(pair[0]), str(pair[1]), size=size)
    module = StyleTransfer(
        stages=[Stage(evaluations, scale=0.7), Stage(last)], terms=terms,
        extractor=VGG19(str(weights)),
    )  # fmt: skip
    callbacks = [Progress(), Metrics(), Faults(), Watch(), Snapshots(every=4)]
    trainer = StyleTrainer(
        **(QUIET | {"accelerator": accelerator, "enable_progress_bar": True}), precision="32-true",
        callbacks=callbacks, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return trainer, module
