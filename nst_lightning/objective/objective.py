"""The objective: weighted terms, each for all of the picture or for a region of it. Configuration only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from nst_lightning.errors import UserError
from nst_lightning.features import Extractor
from nst_lightning.losses import Content, Gram, Term
from nst_lightning.losses.pixels import Pixels
from nst_lightning.losses.term import PIXEL_LAYERS, check_weight
from nst_lightning.objective.likeness import NEUTRAL, Likeness, content_weight
from nst_lightning.objective.masks import Masks

GROUPS = ("content", "style", "tv")

Key: TypeAlias = tuple[int, str]  # index of a part of the objective, and a layer or ``image``


class Evaluation(NamedTuple):
    """One evaluation of the objective."""

    loss: Tensor  # the weighted total, a scalar with gradient
    parts: Tensor  # (K,) weighted values in the order of `Objective.part_names`, detached


class Part(NamedTuple):
    """A term, for all of the picture or a region of it."""

    term: Term
    name: str  # prefix of its columns
    region: int | None = None  # index of the region; None: all of the picture


def default_terms() -> list[Term]:
    """The balanced objective: content as half its own mean square, each style layer relative to its start."""
    return [Content(weight=0.5), Gram()]


class Objective(nn.Module):
    """Weighted sum of terms over the features of one image.

    Args:
        terms: At least one term; terms of one kind are told apart by numbers.
        strength: Factor on all terms of the group ``style``. Below 1 and with a balanced Content a `Pixels` joins the
            terms, of the content's weight times what the strength lacks.
        likeness: How much a stranger is to recognise of the content, 0 to 1; 0.5 leaves the terms as they are. See
            `likeness.Likeness`.
        regions: In how many regions of the picture there are styles of their own; 0: the styles are blended everywhere.

    Attributes:
        parts: The terms, those of the group ``style`` once for each region.
        layers: All layers of the network that terms look at, sorted.
        part_names: ``<term>.<layer>``, columns of the metrics.
        part_groups: The group of each.

    Raises:
        UserError: If there is nothing to optimise, a weight is negative or not finite, or a term cannot have regions.
    """

    def __init__(
        self, terms: Sequence[Term], strength: float = 1.0, regions: int = 0, likeness: float = NEUTRAL
    ) -> None:
        super().__init__()
        check_weight("model.strength", strength)
        _check_terms(terms)
        self.strength, self.likeness = strength, Likeness.of(terms, likeness)
        self._check_weights(terms)
        self._given = list(terms)
        terms = [*terms, *_pixels(terms, strength)]
        self.terms = nn.ModuleList(terms)  # registered, so that networks of a term go to the device
        self.parts = _parts(terms, regions)
        self.layers = sorted({layer for term in terms for layer in term.layers if layer not in PIXEL_LAYERS})
        self.part_keys = [(index, column) for index, part in enumerate(self.parts) for column in part.term.columns]
        self.part_names = [f"{self.parts[index].name}.{column}" for index, column in self.part_keys]
        self.part_groups = [self.parts[index].term.group for index, _ in self.part_keys]

    def _check_weights(self, terms: Sequence[Term]) -> None:
        """Refuse an objective that is 0 for every picture."""
        if not any(self._weight(term) > 0 for term in terms):
            raise UserError(
                f"model.terms: must have a term that counts, got none with model.strength {self.strength:g} and "
                f"model.likeness {self.likeness.share:g}; raise the one that takes all weight from them"
            )

    def _weight(self, term: Term) -> float:
        """The weight of a term, as strength and likeness change it."""
        return self.likeness.weight(term) * (self.strength if term.group == "style" else 1.0)

    def divided(self, regions: int) -> Objective:
        """The same terms with so many regions.

        Raises:
            UserError: If a style term cannot look at a region of the picture.
        """
        return Objective(self._given, self.strength, regions, self.likeness.share)

    @property
    def layer_keys(self) -> list[Key]:
        """Each part with each of its layers, the picture itself among them."""
        return [(index, layer) for index, part in enumerate(self.parts) for layer in part.term.layers]

    @property
    def keeps_content(self) -> bool:
        """Whether a term compares with the content."""
        return any(part.term.group == "content" for part in self.parts)

    @property
    def needs_start(self) -> bool:
        """Whether targets depend on the picture that a stage starts from."""
        return any(part.term.needs_start for part in self.parts)

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
        single = parts.unbind()
        # Not by an index, which an accelerator would be sent, and the host would wait for that.
        members = [[at for at, group in enumerate(self.part_groups) if group == name] for name in self.group_names]
        sums = [torch.stack([single[i] for i in at]).sum() if at else parts.new_zeros(()) for at in members]
        return dict(zip(self.loss_names, [loss.detach(), *sums, *single], strict=True))

    def factor(self, key: Key, of_mask: float) -> float:
        """Weight of the loss of a part and column, `of_mask` being the part's of `Weights.factors`."""
        term = self.parts[key[0]].term
        return self._weight(term) * of_mask * term.layers.get(key[1], 1.0)

    def least_side(self, strides: Mapping[str, int]) -> int:
        """A side in pixels at which every layer has as many cells as each term needs, whatever the other side is."""
        terms = [(self.parts[index].term, layer) for index, layer in self.layer_keys]
        strides = with_pixels(strides)
        return max((strides[at] * (2 if term.needs_spread else term.least_side) for term, at in terms), default=1)

    def check_sizes(self, sizes: dict[str, tuple[int, int]], extractor: Extractor) -> None:
        """Refuse images in which a layer of a network has no cell, or fewer than a term needs.

        Sizes are heights and widths in pixels by the name of the argument that they come from.

        Raises:
            UserError: With the side that is there and the one that is needed.
        """
        if not self.layers:
            return
        strides = with_pixels(extractor.strides)
        needed, deepest = extractor.smallest_side(self.layers)
        for argument, (height, width) in sizes.items():
            got = f"({width}x{height} px); choose a larger size or leave the layer out"
            if min(height, width) < needed:
                raise UserError(
                    f"{argument}: the short side must be at least {needed} px for layer {deepest}, got "
                    f"{width}x{height} px; choose a larger size or leave the deepest layers out"
                )
            for part, layer in ((self.parts[index], layer) for index, layer in self.layer_keys):
                rows, columns = height // strides[layer], width // strides[layer]
                least, at = part.term.least_side, f"at layer {layer} for the term {part.name}, got"
                if min(rows, columns) < least:
                    raise UserError(f"{argument}: must have {least}x{least} cells or more {at} {columns}x{rows} {got}")
                if rows * columns == 1 and part.term.needs_spread:
                    raise UserError(f"{argument}: must have two cells or more {at} one {got}")

    def check_masks(self, masks: Masks, blend: Sequence[float], extractor: Extractor) -> None:
        """Refuse a stage's masks if they leave a term nothing, or no style with a weight in the blend.

        Raises:
            UserError: With the mask and the layer.
        """
        strides = with_pixels(extractor.strides)
        for part in self.parts:
            layers = {layer: strides[layer] for layer in part.term.layers}
            is_style = part.term.group == "style"
            region = None if part.region is None else masks.regions[part.region]
            asked = masks.content is not None and masks.content.asked
            content = masks.content if part.term.group == "content" and asked else None
            for mask in (masks.visible, region, content, *(masks.styles if is_style else [])):
                if mask is not None:
                    mask.check(layers)
            asked = bool(masks.matched) or any(mask and mask.asked for mask in masks.styles)
            if is_style and not part.term.weighs_styles and asked:
                raise _needs_no_mask(part.term)
            for layer in layers if is_style else []:
                if not masks.blend(part.region, layer, blend):
                    raise UserError(
                        f"data.style: must have a style with a weight for layer {layer} of the term {part.name}, "
                        "got none; add the layer to the layers of one, or take it from the term's"
                    )
        for named in masks.layers:
            extractor.check_layers([layer for layer in named or [] if layer not in PIXEL_LAYERS], argument="data.style")


def with_pixels(strides: Mapping[str, int]) -> Mapping[str, int]:
    """Pixels a cell of a network's layers, and of the picture itself and its detail."""
    return {**dict.fromkeys(PIXEL_LAYERS, 1), **strides}


def _check_terms(terms: Sequence[Term]) -> None:
    if not any(term.weight > 0 for term in terms):
        raise UserError("model.terms: must hold a term with a weight above 0, got none; add a Content or Gram term")
    for term in terms:
        if not term.columns:
            raise UserError(f"{term.name}.layers: must name at least one layer, got none; leave the term out")
        if any(parameter.requires_grad for parameter in term.parameters()):
            raise UserError(
                f"model.terms: the image must be all that is trained, but {term.name} has parameters with "
                "requires_grad; call requires_grad_(False) on them"
            )


def _pixels(terms: Sequence[Term], strength: float) -> list[Term]:
    """What keeps a picture of little style near the photograph; other normalisations than ours have no unit for it."""
    weight = content_weight(terms)
    return [Pixels(weight * (1 - strength))] if weight > 0 and strength < 1 else []


def _parts(terms: Sequence[Term], regions: int) -> list[Part]:
    """Terms with names of their own, those of style once for each region."""
    names = [term.name for term in terms]
    parts: list[Part] = []
    for index, term in enumerate(terms):
        number = str(names[: index + 1].count(term.name)) if names.count(term.name) > 1 else ""
        name = term.name + number
        if not regions or term.group != "style":
            parts.append(Part(term, name))
            continue
        if not term.weighs_cells:
            raise _needs_no_mask(term)
        parts += [Part(term, f"{name}_region{region + 1}", region) for region in range(regions)]
    return parts


def _needs_no_mask(term: Term) -> UserError:
    """What is said of a style term that would not heed a mask."""
    return UserError(
        f"data.style: must have no mask with the term {term.name}, which does not weigh cells; take Gram, "
        "Covariance, MeanStd, Wasserstein, Histogram, RelaxedEMD, NearestNeighbour or Palette, or leave the masks (and "
        "data.regions) out"
    )
