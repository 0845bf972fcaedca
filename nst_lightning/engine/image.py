"""The image as a module's only parameter, and what is seen of it while an optimiser works on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from nst_lightning.data.module import StyleTransferData
from nst_lightning.engine.optimizers import one_evaluation_per_step
from nst_lightning.errors import UserError
from nst_lightning.images.resize import resize, target_size
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective
from nst_lightning.objective.targets import StyleTargets
from nst_lightning.optim.modes import showing_result, to_result, to_stepping


class ImageModule(LightningModule):
    """A module of one image.

    Attributes:
        image: (1, 3, H, W), float32, nominally in [0, 1]; it takes its size when the data is known.
        went_back: Whether a callback has put the best image of the stage that has just ended in the place of its last.
        objective: What the image is optimised for.
        style_targets: Makes the targets of styles without masks, in place of the evaluator, if the network is as it was
            given; whoever makes several pictures may have them from before.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective
        self.image = nn.Parameter(torch.zeros(1, 3, 16, 16))
        self.style_targets: Callable[[Evaluator, Sequence[tuple[Tensor, float]]], StyleTargets] | None = None
        self.went_back = False
        self._start: Tensor | None = None  # what the present stage started from, if a term asks for it
        self._has_picture = False
        self._pictures: StyleTransferData | None = None  # of this model's latest fit; the trainer may go on to others
        self._stepping = False  # whether the optimiser holds the point that it steps from, not its result

    def picture(self, longest: int | None = None) -> Tensor:
        """The picture as it is now, float32 on the CPU, in [0, 1], in the colours that the data asks for.

        Args:
            longest: Longest side in pixels that a larger image is scaled down to.

        Returns:
            (1, 3, H, W), at most at the stage's size.

        Raises:
            UserError: Before any fit.
        """
        self._require_picture()
        with self.showing_result():
            image = self.image.detach().float()
            height, width = image.shape[-2:]
            if longest is not None and max(height, width) > longest:
                image = resize(image, target_size(height, width, longest))
            return self._finished(image)

    def final_picture(self, extended: bool = False) -> Tensor:
        """The picture at the run's own size, also when the run was cut short at a coarser stage; else as `picture`.

        Args:
            extended: Keep values beyond [0, 1], which a wider colour space than sRGB may hold.
        """
        self._require_picture()
        if tuple(self.image.shape[-2:]) == self._data.stage_size():
            with self.showing_result():
                return self._finished(self.image.detach().float(), extended)
        content = self._data.stage_images().content.to(self.image)
        with self.showing_result():
            return self._finished(self._resized_to(content).float(), extended)

    @contextlib.contextmanager
    def showing_result(self) -> Iterator[None]:
        """Hold what the optimiser means to be seen, for a while; a schedule-free one steps from another image."""
        if not self._stepping:
            yield
            return
        with showing_result(self.trainer.optimizers[0], self.image):
            yield

    def settle(self) -> None:
        """Hold what the optimiser means to be seen from now on: a stage has ended."""
        if self._stepping:
            to_result(self.trainer.optimizers[0])
            self._stepping = False

    def _step_on(self) -> None:
        """Let the optimiser step from here."""
        for optimizer in self.trainer.optimizers:
            to_stepping(one_evaluation_per_step(optimizer))
        self._stepping = bool(self.trainer.optimizers)

    def _begin_stage(self, anew: bool) -> None:
        """Keep the image that a stage starts from, if a term asks for it; one that goes on has it already."""
        if anew:
            self._begin_averages()
        if not self.objective.needs_start:
            self._start = None
        elif anew or self._start is None or self._start.shape != self.image.shape:
            self._start = self.image.detach().clone()
        else:
            self._start = self._start.to(self.image.device)

    def _begin_averages(self) -> None:
        """Let Lightning's averages begin anew with an image of another size."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):
                callback.setup(self.trainer, self, "fit")

    def _require_picture(self) -> None:
        if not self._has_picture:
            raise UserError("picture: needs a fit, got none yet; call trainer.fit(model, datamodule=data) first")

    def _finished(self, image: Tensor, extended: bool = False) -> Tensor:
        """An image as it is to be seen: clamped, on the CPU, in the colours asked for."""
        image = image.cpu() if extended else image.clamp(0, 1).cpu()
        return image if self._pictures is None else self._pictures.finished(image, extended)

    @property
    def _data(self) -> StyleTransferData:
        if self._pictures is not None:
            return self._pictures
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, StyleTransferData):
            raise UserError(
                f"datamodule: must be a StyleTransferData, got {type(data).__name__}; pass it to trainer.fit"
            )
        return data

    @torch.no_grad()
    def _resized_to(self, content: Tensor) -> Tensor:
        """The image at the size of a content image (1, 3, H, W)."""
        size = (content.shape[-2], content.shape[-1])
        image = self.image.detach()
        if tuple(image.shape[-2:]) == size:
            return image
        if not self.objective.keeps_content:
            return resize(image, size)
        # Only the change is enlarged: the content brings its own detail at the new size.
        previous = resize(content, (image.shape[-2], image.shape[-1]))
        return resize(image - previous, size).add_(content)
