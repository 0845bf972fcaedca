"""A program that uses all public names, as a type checker in strict mode sees it; it is checked and not run."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import Callback
from PIL import Image
from torch import Tensor

import nst_lightning
from nst_lightning import (
    Result,
    Session,
    Stage,
    Style,
    StyleTrainer,
    StyleTransfer,
    StyleTransferData,
    UserError,
    callbacks,
    features,
    gallery,
    images,
    losses,
    optim,
    session,
    stylize,
)


def one_call(photo: Path, array: np.ndarray[Any, Any], tensor: Tensor, stop: threading.Event) -> list[Image.Image]:
    by_path: Result[Image.Image] = stylize(photo, "painting.jpg", size=512, strength=1.5, keep_colors=True)
    by_image: Image.Image = stylize(Image.open(photo), [("a.jpg", 2.0), Image.open("b.jpg")], stroke_size=2.0).image
    by_array: np.ndarray[Any, Any] = stylize(array, {"path": "a.jpg", "scale": 2.0}, seconds=10, seed=1).image
    by_tensor: Tensor = stylize(tensor, tensor, preset="painterly", evaluations=100, stop=stop).image
    texture = stylize(None, "painting.jpg", preset="texture", device="cpu", precision="32-true", progress=True)
    own: dict[str, Any] = {"data.color": "match"}
    made = Session(keep=True, **own)
    told = made.stylize(photo, "a.jpg", progress=progress, output="out.png", **own)
    told.save("out.jpg", bits=8, quality=90)
    facts: tuple[dict[str, float], float, tuple[int, int], str] = (
        told.losses,
        told.seconds,
        told.size,
        told.configuration,
    )
    outcome: session.Outcome = told
    print(facts, by_array.shape, by_tensor.shape, outcome.evaluations, outcome.total, outcome.metadata)
    return [by_path.image, by_image, texture.to_pil(), Image.fromarray(np.asarray(told))]


def progress(update: session.Update) -> bool:
    small: Tensor = update.preview(128)
    print(update.evaluation, update.total, update.loss, small.shape)
    return update.seconds < 60


def module_and_trainer() -> Tensor:
    data = StyleTransferData("photo.jpg", [Style("a.jpg", weight=2.0), "b.jpg"], size=512, color="luminance")
    terms: list[losses.Term] = [
        losses.Content(["relu4_2"], weight=0.5),
        losses.CosineContent(["relu3_1"], weight=0.5),
        losses.SelfSimilarity(samples=512),
        losses.Tones(cells=64),
        losses.MattingLaplacian(radius=0.02),
        losses.Gram(),
        losses.Covariance(),
        losses.MeanStd({"relu1_1": 1.0}),
        losses.Wasserstein(correlated=0.99),
        losses.SlicedWasserstein(projections=32),
        losses.Histogram(),
        losses.NNFM(patches=1),
        losses.NearestNeighbour(turns=True),
        losses.RelaxedEMD(samples=512),
        losses.Palette(samples=512),
        losses.Grain(side=16),
        losses.TotalVariation(weight=0.1),
        ChannelMeans(),
    ]
    network: features.Extractor = features.VGG19(pooling="average")
    stages = [Stage(100, scale=0.5, extractor=features.CompactVGG19("narrow")), Stage(50)]
    model = StyleTransfer(stages=stages, terms=terms, extractor=network, optimizer=optimizer)
    own: list[Callback] = [
        callbacks.Announce(),
        callbacks.Averaging(decay=0.9),
        callbacks.Checkpoints(every=10),
        callbacks.Export("out.png", bits=16),
        callbacks.Faults(),
        callbacks.Feedback(progress),
        callbacks.Figure(),
        callbacks.Logs(),
        callbacks.Metrics(),
        callbacks.Preview(),
        callbacks.Progress(),
        callbacks.Record(),
        callbacks.Report(),
        callbacks.Signals(),
        callbacks.Snapshots(every=10, format="webp"),
        callbacks.Timelapse("film.mp4"),
        callbacks.Watch(),
    ]
    trainer = StyleTrainer(precision="auto", logger=False, max_epochs=-1, callbacks=own)
    try:
        trainer.fit(model, datamodule=data)
    except UserError as error:
        print(error, nst_lightning.__version__)
    return model.picture(256)


def optimizer(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    return optim.LBFGS(parameters, lr=0.5, history_size=10)


class ChannelMeans(losses.StyleTerm):
    """A loss of one's own."""

    def measure(self, layer: losses.Layer, features: Tensor, window: losses.Window, target: Any) -> Tensor:
        values = losses.at_least_float32(features) * (1.0 if window.weights is None else window.weights)
        return values.sum((0, 2, 3))

    def distance(self, layer: losses.Layer, mean: Tensor, target: Tensor) -> Tensor:
        return (mean - target).square().sum()


class Texture(losses.Term):
    """One that looks at references of each kind."""

    def matrices(self, cells: int) -> losses.Matrices:
        return losses.Matrices(left=4 * cells**2)

    def style_reference(self, layer: losses.Layer) -> losses.Reference:
        kinds: Mapping[str, losses.Reference] = {
            "mean": losses.Mean(self, layer),
            "sample": losses.Sample(64),
            "map": losses.WholeMap(),
        }
        return kinds["mean"]


class Plain(features.Extractor):
    """A network of one's own."""

    strides: ClassVar[Mapping[str, int]] = {"pixels": 1}

    def forward(self, image: Tensor, layers: Iterable[str]) -> features.Features:
        return dict.fromkeys(layers, image)


def pictures(path: Path) -> tuple[int, int]:
    picture: images.Picture = images.read_image(path)
    height, width = images.check_image(path)
    size = images.target_size(height, width, 256)
    small = images.resize(picture.pixels, size)
    images.check_writable("small.png")
    images.write_image("small.png", small, metadata={"Style": "waves"})
    print(images.read_metadata("small.png"), images.read_mask_samples(path))
    return size


def many(folder: Path, engine: gallery.Engine | None) -> Sequence[str]:
    def tell(event: gallery.Event) -> None:
        step: gallery.Step | None = event.step
        print(event.kind, event.finished, event.pictures, step)

    here: gallery.Engine = gallery.LocalEngine(cores=1)
    cluster: gallery.Engine = gallery.RayEngine(address="auto", cores=1)
    made = gallery.Gallery(folder, ["photos"], ["paintings"], size=256)
    summary: gallery.Summary = made.make(tell, engine or (cluster if len(made.rows) > 100 else here))
    return [*summary.made, *summary.kept, *summary.failed]


def rows(task: gallery.Task, made: gallery.Made) -> tuple[gallery.Row, Sequence[gallery.StyleFile]]:
    print(made.evaluations, made.seconds)
    return task.row, task.row.styles
