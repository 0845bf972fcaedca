"""The objective: extractor and weighted terms, from images to targets and from an image to its loss."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_lightning.errors import UserError
from nst_lightning.features import Extractor
from nst_lightning.hardware.numerics import outside_autocast
from nst_lightning.losses import Content, Gram, SlicedWasserstein, StatisticTerm, StyleFeatures, Term
from nst_lightning.losses.likeness import Likeness
from nst_lightning.losses.projection import widening_of
from nst_lightning.losses.samples import SampleTerm
from nst_lightning.losses.term import StyleStatistic, check_weight
from nst_lightning.objective.masks import Masks

GROUPS = ("content", "style", "tv")

# What a mask takes from the content where it is dark it gives where it is light, up to this factor: there the picture
# is as at half the strength.
_MOST_CONTENT = 2.0


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
        strength: Factor on all terms of the group ``style``. Below 1 and with a balanced Content a `Likeness` joins the
            terms, of the content's weight times what the strength lacks.

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
        terms = [*terms, *_likeness(terms, strength)]
        self.strength = strength
        self.layers = sorted({layer for term in terms for layer in term.layers})
        self.use_extractor(extractor)
        names = [term.name for term in terms]
        for index, term in enumerate(terms):
            if names.count(names[index]) > 1:
                term.name = f"{names[index]}{names[: index + 1].count(names[index])}"
        self._given = list(terms)
        self._take_terms(terms)

    def _take_terms(self, terms: Sequence[Term]) -> None:
        self.terms = list(terms)
        self._modules_of_terms = nn.ModuleList(terms)  # registered, so that a term may have buffers
        self.part_keys = [(term, column) for term in terms for column in term.columns()]
        self.part_names = [f"{term.name}.{column}" for term, column in self.part_keys]
        self.part_groups = [term.group for term, _ in self.part_keys]
        self.requires_grad_(False)

    @property
    def group_names(self) -> list[str]:
        """Groups of terms, the three that every table has first."""
        return [*GROUPS, *sorted(set(self.part_groups) - set(GROUPS))]

    @property
    def loss_names(self) -> list[str]:
        """Names of `losses`."""
        return ["loss", *(f"{group}_loss" for group in self.group_names), *self.part_names]

    def losses(self, evaluation: Evaluation) -> dict[str, Tensor]:
        """All weighted losses of an evaluation by name: the total, the sum of each group, and the parts.

        Returns:
            Detached scalars, on the image's device; none of them is read.
        """
        loss, parts = evaluation
        members = [[at for at, group in enumerate(self.part_groups) if group == name] for name in self.group_names]
        sums = [parts[at].sum() if at else parts.new_zeros(()) for at in members]
        return dict(zip(self.loss_names, [loss.detach(), *sums, *parts.unbind()], strict=True))

    def divide(self, regions: int) -> None:
        """Give each region of the picture style terms of its own; `prepare` then takes the masks.

        Args:
            regions: How many there are; 0: the styles are blended everywhere.

        Raises:
            UserError: If a style term cannot look at a part of the picture.
        """
        if sum(term.region is not None for term in self.terms) == 0 and not regions:
            return
        terms: list[Term] = []
        for term in self._given:
            if not regions or term.group != "style":
                terms.append(term)
                continue
            _check_masked(term)
            for region in range(regions):
                own = copy.deepcopy(term)
                own.region, own.name = region, f"{term.name}_region{region + 1}"
                terms.append(own)
        self._take_terms(terms)

    def take_masks(self, masks: Masks) -> None:
        """Tell terms which cells of the picture count for them, and how much in all."""
        seen = 1.0 if masks.visible is None else float(masks.visible.pixels.mean())
        of_content = masks.of_content()
        for term in self.terms:
            mask, term.area = masks.visible if term.group == "style" else None, 1.0
            if term.group == "content" and of_content is not None:
                mask = of_content
                term.area = min(_MOST_CONTENT, seen / max(float(mask.pixels.mean()), 1e-9)) / seen
            if term.region is not None:
                mask = masks.regions[term.region]
                term.area = float(mask.pixels.mean()) / seen
            if isinstance(term, Likeness):
                term.mask = None if mask is None else mask.pixels
            strides = self.extractor.strides
            term.masks = {} if mask is None else {layer: mask.cells(strides[layer]) for layer in term.layers}

    def check_masks(self, masks: Masks, shares: Sequence[float]) -> None:
        """Refuse masks that leave a term nothing.

        Args:
            masks: Of a stage.
            shares: Of the styles.

        Raises:
            UserError: With the mask and the layer.
        """
        strides = self.extractor.strides
        for term in self.terms:
            layers = {layer: strides[layer] for layer in term.layers}
            if masks.visible is not None:
                masks.visible.check(layers)
            if term.region is not None:
                masks.regions[term.region].check(layers)
            if term.group == "content" and masks.content is not None:
                masks.content.check(layers)
            for mask in masks.styles if term.group == "style" else []:
                if mask is not None:
                    if mask.asked and not isinstance(term, (SampleTerm, SlicedWasserstein)):
                        _check_masked(term)
                    mask.check(layers)
            if term.group == "style":
                for layer in layers:
                    if not masks.blend(term.region, layer, shares):
                        raise UserError(
                            f"data.style: must have a style with a weight for layer {layer} of the term {term.name}, "
                            "got none; add the layer to the layers of one, or take it from the term's"
                        )
        for named in masks.layers:
            self.extractor.check_layers(named or [], argument="data.style")

    def use_extractor(self, extractor: Extractor) -> None:
        """Look at images through another network from now on; `prepare` then takes its targets.

        Raises:
            UserError: If it lacks one of the terms' layers.
        """
        extractor.check_layers(self.layers, argument="model.terms")
        if self.layers:
            extractor.use_layers(self.layers)
        self.extractor = extractor

    def least_side(self) -> int:
        """A side in pixels at which every layer has as many cells as each term needs, whatever the other side is."""

        def cells(term: Term) -> int:
            return 2 if isinstance(term, StyleStatistic) and term.needs_spread else term.least_side

        return max((self.extractor.strides[layer] * cells(term) for term, layer in self.layered_terms()), default=1)

    def check_sizes(self, sizes: dict[str, tuple[int, int]]) -> None:
        """Refuse images in which a layer has no cell, or fewer than a term needs.

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
            for term, at in self.layered_terms():
                rows, columns = height // self.extractor.strides[at], width // self.extractor.strides[at]
                if min(rows, columns) < term.least_side:
                    raise UserError(
                        f"{argument}: must have {term.least_side}x{term.least_side} cells or more at layer {at} for "
                        f"the term {term.name}, got {columns}x{rows} ({width}x{height} px); choose a larger size or "
                        "leave the layer out"
                    )
                if rows * columns == 1 and isinstance(term, StyleStatistic) and term.needs_spread:
                    raise UserError(
                        f"{argument}: must have two cells or more at layer {at} for the term {term.name}, got one "
                        f"({width}x{height} px); choose a larger size or leave the layer out"
                    )

    @outside_autocast
    @torch.no_grad()
    def prepare(self, content: Tensor, styles: Sequence[tuple[Tensor, float]], masks: Masks | None = None) -> None:
        """Take all targets.

        Args:
            content: (1, 3, H, W), RGB in [0, 1], at the size of the image to come.
            styles: Pairs of an image (1, 3, h, w) and its share; the shares sum to 1 (in each region).
            masks: Regions and other masks, on the images' device.
        """
        masks = masks or Masks.none(len(styles))
        self.take_masks(masks)
        self.keep_picture(content)
        self.extractor.rescale_to_unit_activations([content, *(image for image, _ in styles)])
        self.take_widenings()
        # Side by side and without zip, which remembers: only one layer of each picture is in memory at a time.
        networks = [self.extractor.iterate(image, self.layers) for image in [content, *(image for image, _ in styles)]]
        for _ in self.layers:
            (layer, of_content), *of_styles = (next(network) for network in networks)
            stride = self.extractor.strides[layer]
            for term in self.terms:
                if layer in term.layers:
                    blend = masks.blend(term.region, layer, [share for _, share in styles])
                    of_content_here = self.for_term(term, layer, of_content)
                    found = [(self.for_term(term, layer, of_styles[i][1]), share, i) for i, share in blend]
                    mine = [StyleFeatures(features, share, masks.of_style(i, stride)) for features, share, i in found]
                    term.prepare(layer, of_content_here, mine)
                    del of_content_here, found, mine
            del of_content, of_styles

    def keep_picture(self, content: Tensor) -> None:
        """Let the terms that compare pixels have the content's."""
        for term in self.terms:
            if isinstance(term, Likeness):
                term.keep_picture(content)

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
        strength = self.strength if term.group == "style" else 1.0
        return term.weight * term.area * term.layers.get(column, 1.0) * strength

    def for_term(self, term: Term, layer: str, features: Tensor) -> Tensor:
        """Features at the width that a term takes them."""
        widening = None if term.quadratic else self.extractor.widening(layer)
        return features if widening is None else F.conv2d(features, widening[:, :, None, None].to(features.dtype))

    @outside_autocast
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
        means: dict[StatisticTerm, dict[str, Tensor]] = {}
        for layer, features in self.extractor.iterate(image, self.layers):
            for term in self.terms:
                if layer in term.layers:
                    taken = self.for_term(term, layer, features)
                    if isinstance(term, StatisticTerm):
                        means.setdefault(term, {})[layer] = term.mean(layer, taken)
                    else:
                        values[term, layer] = term.value(layer, taken)
        for statistic, of_layers in means.items():
            values.update({(statistic, layer): value for layer, value in statistic.distances(of_layers).items()})
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


def _likeness(terms: Sequence[Term], strength: float) -> list[Term]:
    """What keeps a picture of little style near the photograph; other normalisations than ours have no unit for it."""
    weight = sum(term.weight for term in terms if isinstance(term, Content) and term.normalization == "balanced")
    return [Likeness(weight * (1 - strength))] if weight > 0 and strength < 1 else []


def _check_masked(term: Term) -> None:
    """Refuse a style term that would not heed a mask."""
    if not isinstance(term, StatisticTerm):
        raise UserError(
            f"data.style: must have no mask with the term {term.name}, which does not weigh cells; take Gram, "
            "Covariance, MeanStd or Wasserstein, or leave the masks out"
        )
