"""What a stage compares with, as a value: it is made once, and may be kept and used by several runs and threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nst_lightning.hardware.numerics import widest_dtype
from nst_lightning.losses import Term
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.objective import Key, Objective, with_pixels

# What a mask takes from the content where it is dark it gives where it is light, up to this factor.
_MOST_CONTENT = 2.0


@dataclass(frozen=True)
class Weights:
    """How much each place of the picture counts for each part of the objective."""

    # For each part a factor on its losses: the fraction of what is seen of the picture that its mask leaves or, for
    # content terms, what makes the weights of what is seen average 1, at most 2; see `_of_part`.
    factors: Sequence[float]
    cells: Mapping[Key, Tensor]  # part and layer -> weights of the layer's cells, (1, 1, h, w); none: all alike
    sums: Mapping[Key, float]  # part and layer -> sum of these weights
    pixels: Mapping[int, Tensor]  # part -> weights of the picture's pixels, (1, 1, H, W); none: all alike

    @classmethod
    def of(cls, objective: Objective, masks: Masks, strides: Mapping[str, int]) -> Weights:
        """What a stage's masks mean for an objective, which has as many regions; strides are pixels a cell by layer."""
        strides = with_pixels(strides)
        seen = 1.0 if masks.visible is None else float(masks.visible.pixels.mean())
        found = [_of_part(part.term, part.region, masks, seen) for part in objective.parts]
        masked = {index: mask for index, (mask, _) in enumerate(found) if mask is not None}
        cells = {key: masked[key[0]].cells(strides[key[1]]) for key in objective.layer_keys if key[0] in masked}
        return cls(
            [factor for _, factor in found],
            cells,
            {key: total_of(weights) for key, weights in cells.items()},
            {i: mask.pixels for i, mask in masked.items() if objective.parts[i].term.sees_image},
        )


def total_of(weights: Tensor) -> float:
    """Sum of weights, in double precision where the device has it, so that its last bits do not depend on threads."""
    return float(weights.sum(dtype=widest_dtype(weights.device)))


def _of_part(term: Term, region: int | None, masks: Masks, seen: float) -> tuple[Mask | None, float]:
    """The mask of a part of the objective, and its factor.

    Content terms that are sums get smaller with a mask of itself, by the mask's mean over all of the picture. Those
    that are means over what the mask leaves do not: they get that mean as a factor, too.
    """
    if region is not None:
        return masks.regions[region], float(masks.regions[region].pixels.mean()) / seen
    if not (term.weighs_cells or term.sees_image):
        return None, 1.0
    if term.group == "content" and (mask := masks.of_content()) is not None:
        left = float(mask.pixels.mean())
        factor = min(_MOST_CONTENT, seen / max(left, 1e-9)) / seen
        return mask, factor if term.additive else factor * left
    return masks.visible if term.group == "style" else None, 1.0


@dataclass(frozen=True)
class Targets:
    """All that an evaluation compares with."""

    of_layers: Mapping[Key, Any]  # part and layer -> what `Term.target` made
    weights: Weights  # of cells and pixels
    content: Tensor | None = None  # (1, 3, H, W), if a term compares pixels with it; the very tensor that was given


@dataclass(frozen=True)
class StyleTargets:
    """The style's part of `Targets`, which depends on nothing else: it may be kept for other content pictures."""

    of_layers: Mapping[Key, Any]  # part and layer -> what `Term.style_target` made
