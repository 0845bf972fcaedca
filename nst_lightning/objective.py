"""The objective: extractor and weighted terms, from images to targets and from an image to its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_lightning.errors import UserError
from nst_lightning.features import Extractor
from nst_lightning.losses import Content, Gram, StyleFeatures, Term
from nst_lightning.losses.term import Widening, check_weight


class Evaluation(NamedTuple):
    """One evaluation of the objective.

    Attributes:
        loss: The weighted total, a scalar with gradient.
        parts: (K,) weighted values in the order of `Objective.part_names`, detached.
    """

    loss: Tensor
    parts: Tensor


def default_terms() -> list[Term]:
    """The balanced objective: content as half its own mean square, each style layer relative to its start."""
    return [Content(weight=0.5), Gram()]


class Objective(nn.Module):
    """Weighted sum of terms over the features of one image.

    Args:
        extractor: Frozen network.
        terms: At least one term; names are made unique by numbering.
        strength: Factor on all terms of the group ``style``.

    Raises:
        UserError: If there is nothing to optimise, a layer does not exist or a weight is negative or not finite.
    """

    def __init__(self, extractor: Extractor, terms: Sequence[Term], strength: float = 1.0) -> None:
        super().__init__()
        check_weight("model.strength", strength)
        if not any(term.weight > 0 for term in terms):
            raise UserError("model.terms: must hold a term with a weight above 0, got none; add a Content or Gram term")
        for term in terms:
            if not term.columns():
                raise UserError(f"{term.name}.layers: must name at least one layer, got none; leave the term out")
        self.terms = list(terms)
        self._modules_of_terms = nn.ModuleList(terms)  # registered, so that a term may have buffers
        self.strength = strength
        self.layers = sorted({layer for term in terms for layer in term.layers})
        self.use_extractor(extractor)
        names = [term.name for term in terms]
        for index, term in enumerate(terms):
            if names.count(names[index]) > 1:
                term.name = f"{names[index]}{names[: index + 1].count(names[index])}"
        self.part_keys = [(term, column) for term in terms for column in term.columns()]
        self.part_names = [f"{term.name}.{column}" for term, column in self.part_keys]
        self.part_groups = [term.group for term, _ in self.part_keys]
        self.requires_grad_(False)

    def use_extractor(self, extractor: Extractor) -> None:
        """Look at images through another network from now on; `prepare` then takes its targets.

        Raises:
            UserError: If it lacks one of the terms' layers.
        """
        extractor.check_layers(self.layers, argument="model.terms")
        if self.layers:
            extractor.use_layers(self.layers)
        self.extractor = extractor

    def check_sizes(self, sizes: dict[str, tuple[int, int]]) -> None:
        """Refuse images in which the deepest layer has no cell.

        Args:
            sizes: Argument name -> height and width in pixels.

        Raises:
            UserError: With the side that is there and the one that is needed.
        """
        if not self.layers:
            return
        needed, layer = self.extractor.smallest_side(self.layers)
        for argument, (height, width) in sizes.items():
            if min(height, width) < needed:
                raise UserError(
                    f"{argument}: the short side must be at least {needed} px for layer {layer}, got "
                    f"{width}x{height} px; choose a larger size or leave the deepest layers out"
                )

    @torch.no_grad()
    def prepare(self, content: Tensor, styles: Sequence[tuple[Tensor, float]]) -> None:
        """Take all targets.

        Args:
            content: (1, 3, H, W), RGB in [0, 1], at the size of the image to come.
            styles: Pairs of an image (1, 3, h, w) and its share; the shares sum to 1.
        """
        self.extractor.rescale_to_unit_activations([content, *(image for image, _ in styles)])
        self.take_widenings()
        # Side by side and without zip, which remembers: only one layer of each picture is in memory at a time.
        networks = [self.extractor.iterate(image, self.layers) for image in [content, *(image for image, _ in styles)]]
        for _ in self.layers:
            (layer, of_content), *of_styles = (next(network) for network in networks)
            blend = [StyleFeatures(found[1], share) for found, (_, share) in zip(of_styles, styles, strict=True)]
            for term in self.terms:
                if layer in term.layers:
                    term.prepare(
                        layer,
                        self.for_term(term, layer, of_content),
                        [StyleFeatures(self.for_term(term, layer, found), share) for found, share in blend],
                    )
            del of_content, of_styles, blend

    def take_widenings(self) -> None:
        """Tell quadratic terms of the extractor's linear maps, whose factors may have changed."""
        widenings = {layer: widening_of(self.extractor.widening(layer)) for layer in self.layers}
        for term in self.terms:
            if term.quadratic:
                term.widenings = {layer: found for layer in term.layers if (found := widenings[layer]) is not None}

    def layered_terms(self, kind: type[Term] = Term) -> list[tuple[Term, str]]:
        """Terms of a class with each of their layers."""
        return [(term, layer) for term in self.terms if isinstance(term, kind) for layer in term.layers]

    def factor(self, term: Term, column: str) -> float:
        """Weight of one of a term's values in the loss."""
        return term.weight * term.layers.get(column, 1.0) * (self.strength if term.group == "style" else 1.0)

    def for_term(self, term: Term, layer: str, features: Tensor) -> Tensor:
        """Features at the width that a term takes them."""
        widening = None if term.quadratic else self.extractor.widening(layer)
        return features if widening is None else F.conv2d(features, widening[:, :, None, None].to(features.dtype))

    def forward(self, image: Tensor) -> Evaluation:
        """Evaluate.

        Args:
            image: (1, 3, H, W), RGB, nominally in [0, 1].

        Returns:
            The weighted loss and its parts.
        """
        if image.requires_grad:
            # A network with channels innermost hands its gradient back in that order; optimisers such as
            # torch.optim.LBFGS want the parameter's own.
            image = image.view_as(image)
            image.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]
        values: dict[tuple[Term, str], Tensor] = {}
        for layer, features in self.extractor.iterate(image, self.layers):
            for term in self.terms:
                if layer in term.layers:
                    values[term, layer] = term.value(layer, self.for_term(term, layer, features))
        for term in self.terms:
            values.update({(term, column): value for column, value in term.image_values(image).items()})
        stacked = torch.stack([self.factor(*key) * values[key] for key in self.part_keys])
        return Evaluation(stacked.sum(), stacked.detach())

    def image_parts(self, image: Tensor, gradient: Tensor | None) -> dict[tuple[Term, str], Tensor]:
        """Weighted values of what terms take from the image itself; their gradient is added to a tensor, if given."""
        with torch.set_grad_enabled(gradient is not None):
            leaf = image.detach().requires_grad_(gradient is not None)
            parts = {
                (term, column): self.factor(term, column) * value
                for term in self.terms
                for column, value in term.image_values(leaf).items()
            }
            if gradient is not None and parts:
                gradient += torch.autograd.grad(torch.stack(list(parts.values())).sum(), leaf)[0]
        return {key: value.detach() for key, value in parts.items()}


def widening_of(matrix: Tensor | None) -> Widening | None:
    """What terms need of a linear map (C, c), with a root from the eigenvalues of its moments."""
    if matrix is None:
        return None
    wide = matrix.detach().double().cpu()  # once, and some devices have no float64
    values, vectors = torch.linalg.eigh(wide.T @ wide)
    root = values.clamp(min=0).sqrt()[:, None] * vectors.T
    return Widening(root.to(device=matrix.device, dtype=torch.float32), matrix.detach())
