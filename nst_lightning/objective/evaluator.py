"""The evaluator: the loss of an image with its gradient, from an objective, a network and targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.errors import UserError
from nst_lightning.features import Extractor
from nst_lightning.hardware.memory import hand_back_freed_memory, shares_memory
from nst_lightning.hardware.numerics import widest_dtype, without_autocast
from nst_lightning.hardware.recording import recorder_for
from nst_lightning.losses.grid import Tile
from nst_lightning.objective.collective import Collective
from nst_lightning.objective.comparison import Comparison
from nst_lightning.objective.masks import Masks
from nst_lightning.objective.objective import Evaluation, Objective
from nst_lightning.objective.preparation import Preparation
from nst_lightning.objective.recorded import RecordedEvaluation
from nst_lightning.objective.targets import StyleTargets, Targets, Weights
from nst_lightning.objective.tiled import evaluate_tiled
from nst_lightning.objective.traversal import Traversal

_LARGE = 8  # tiles in an image whose step takes about as much memory as a tile


class Evaluator:
    """An objective, seen through a network, whole or tile by tile.

    Args:
        objective: Terms and weights.
        extractor: The frozen network.
        tile: Longest side of a tile's core in pixels; None: the whole image at once.
        stored_tiles: Number of tiles (of this process) whose activations stay in memory between the two passes, which
            saves their second run.
        processes: Those that share the tiles; each then needs its part of the memory and of the time.

    Attributes:
        targets: What images are compared with; `prepare` makes them, or they are those of another evaluator of the same
            objective, network and size.

    Raises:
        UserError: If a layer does not exist, or with tiles if a term or the network can only work on whole images.
    """

    def __init__(
        self,
        objective: Objective,
        extractor: Extractor,
        tile: int | None = None,
        stored_tiles: int = 0,
        processes: Collective | None = None,
    ) -> None:
        extractor.check_layers(objective.layers, argument="model.terms")
        if tile is not None:
            check_tileable(objective, extractor)
        if objective.layers:
            extractor.use_layers(objective.layers)
        self.objective, self.extractor, self.tile, self.stored_tiles = objective, extractor, tile, stored_tiles
        self.traversal = Traversal(objective, extractor, tile, processes)
        self._preparation = Preparation(objective, self.traversal)
        self._alone = processes is None
        self._recorded: RecordedEvaluation | None = None
        self.targets: Targets | None = None

    @torch.no_grad()
    def style_targets(self, styles: Sequence[tuple[Tensor, float]], masks: Masks | None = None) -> StyleTargets:
        """Make the style's part of targets, which may be kept for other contents.

        Args:
            styles: Pairs of an image (1, 3, h, w), RGB in [0, 1], and its share of the blend; shares sum to 1 (in
                each region).
            masks: Regions and other masks, on the images' device.
        """
        with without_autocast(styles[0][0].device if styles else torch.device("cpu")):
            return self._preparation.style_targets(styles, masks or Masks.none(len(styles)))

    @torch.no_grad()
    def prepare(
        self,
        content: Tensor,
        styles: Sequence[tuple[Tensor, float]] | StyleTargets,
        masks: Masks | None = None,
        start: Tensor | None = None,
    ) -> Targets:
        """Make all targets, and compare images with them from now on.

        Args:
            content: (1, 3, H, W), RGB in [0, 1], at the size of the images to come.
            styles: As of `style_targets`, or what it returned.
            masks: Regions and other masks, on the images' device.
            start: The image that optimisation starts from, for terms that ask for it; by default the content.
        """
        self.traversal.forget_projections()
        style = styles if isinstance(styles, StyleTargets) else self.style_targets(styles, masks)
        weights = Weights.of(self.objective, masks or Masks.none(0), self.extractor.strides)
        with without_autocast(content.device):
            self.targets = self._preparation.targets(content, style, weights, content if start is None else start)
        record = recorder_for(content.device, content.numel()) if self.tile is None and self._alone else None
        self._recorded = record and RecordedEvaluation(evaluate_whole, self._comparison, self.extractor, record)
        return self.targets

    def __call__(self, image: Tensor) -> Evaluation:
        """Evaluate.

        Args:
            image: (1, 3, H, W), RGB, nominally in [0, 1].

        Returns:
            The weighted loss and its parts.
        """
        with without_autocast(image.device):
            if self._recorded is not None and image.is_leaf and image.requires_grad and torch.is_grad_enabled():
                return self._recorded(image)
            if self.tile is None:
                return evaluate_whole(self._comparison, image)
            loss, parts = _Tiled.apply(image, self, torch.is_grad_enabled() and image.requires_grad)
            return Evaluation(loss, parts)

    def forget_recordings(self) -> None:
        """Give up what a GPU replays of evaluations, and its memory; those that follow are recorded anew."""
        if self._recorded is not None:
            self._recorded.forget()

    @property
    def _comparison(self) -> Comparison:
        if self.targets is None:
            raise RuntimeError("an evaluator needs targets: call prepare(content, styles) first")
        return Comparison(self.objective, self.traversal, self.targets)


def evaluate_whole(comparison: Comparison, image: Tensor) -> Evaluation:
    """Evaluate an image, (1, 3, H, W), all at once."""
    if image.requires_grad:
        # A network with channels innermost hands its gradient back in that order; optimisers such as
        # torch.optim.LBFGS want the parameter's own.
        image = image.view_as(image)
        image.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]
    objective, tile = comparison.objective, Tile.whole(image.shape[-2], image.shape[-1])
    measures = comparison.measures(image, tile, objective.layer_keys, comparison.targets.of_layers)
    losses = {key: value for key, value in measures if comparison.is_additive(key)}
    losses |= comparison.losses(
        {key: value / comparison.cell_count(key, image) for key, value in measures if key not in losses}
    )
    losses |= comparison.image_losses(image)
    stacked = torch.stack([comparison.factor(key) * losses[key] for key in objective.part_keys])
    return Evaluation(stacked.sum(), stacked.detach())


class _Tiled(torch.autograd.Function):
    """Loss and gradient at once, so that the gradient is there when it is asked for."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, evaluator: Evaluator, follow: bool) -> tuple[Tensor, Tensor]:
        assert evaluator.tile is not None
        exact = widest_dtype(image.device)
        gradient = torch.zeros(image.shape, dtype=exact, device=image.device) if follow else None
        with torch.set_grad_enabled(follow):
            parts = evaluate_tiled(evaluator._comparison, image.detach(), gradient, evaluator.stored_tiles)
        if shares_memory(image.device) and image[0, 0].numel() >= _LARGE * evaluator.tile**2:
            hand_back_freed_memory()  # the optimiser's vectors do not fit into what the tiles leave in the heap
        ctx.gradient = None if gradient is None else gradient.to(image.dtype)
        ctx.mark_non_differentiable(parts)
        return parts.sum(), parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        gradient, ctx.gradient = ctx.gradient, None  # full size: not to be kept, nor copied once more
        return gradient.mul_(upstream), None, None


def check_tileable(objective: Objective, extractor: Extractor) -> None:
    """Refuse what needs whole feature maps.

    Raises:
        UserError: If a term or the network cannot work tile by tile.
    """
    for part in objective.parts:
        if part.term.layers and part.term.needs_whole:
            raise UserError(
                f"model.tile: must be null with the term {part.name}, which {part.term.needs_whole}; leave the tile "
                "out, or take another term (Gram, Covariance, MeanStd, Wasserstein, RelaxedEMD, Palette, Histogram, "
                "NearestNeighbour and, with patches: 1, NNFM work in tiles)"
            )
    if objective.layers and extractor.halo(objective.layers) is None:
        raise UserError(
            f"model.tile: must be null with {type(extractor).__name__}, which does not say how far its "
            "layers see (halo); leave the tile out"
        )
