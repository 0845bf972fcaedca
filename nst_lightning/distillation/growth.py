"""More rank for a student that is trained: what it still gets wrong is fitted, and its own weights stay as they are.

Layer by layer from the image on, the teacher's values before ReLU less the student's are regressed on all that
the student's layer sees, where ReLU passes either of the two; elsewhere errors do not matter. The leading
principal components of what that explains become new columns of the last factor, the combinations of inputs that they
depend on most new rows of the first (`leading_inputs`). The new part of the convolution sees old and new combinations;
the old part learns to use the new ones in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from nst_lightning.distillation.compression import leading_inputs, regress, second_moments
from nst_lightning.distillation.network import NAMES, CompactNetwork
from nst_lightning.distillation.sampling import LayerSamples
from nst_lightning.errors import UserError


def check_growth(old: CompactNetwork, new: CompactNetwork) -> None:
    """Tell whether a student can grow into another.

    Raises:
        UserError: If channels differ, ranks shrink or come where there was none, or a layer that grows has not the
            teacher's width, or grows in what it sees alone.
    """
    if new.widths != old.widths:
        raise UserError(
            f"model.widths: must be the student's {list(old.widths)} for it to grow in ranks, got {list(new.widths)}"
        )
    for name, before, after in (("ranks", old.ranks, new.ranks), ("input_ranks", old.input_ranks, new.input_ranks)):
        if any(a != b and (a < b or not b) for a, b in zip(after, before, strict=True)):
            raise UserError(
                f"model.{name}: must be at least the student's {list(before)} where these are not 0, and 0 where they "
                f"are, got {list(after)}"
            )
    for index, name in enumerate(NAMES):
        grows = new.ranks[index] > old.ranks[index]
        if new.input_ranks[index] > old.input_ranks[index] and not grows:
            raise UserError(
                f"model.ranks: must grow where input_ranks grow, got {new.ranks[index]} for {name} as before"
            )
        if grows and (wanted := new.teacher_widths[index]) != new.widths[index]:
            raise UserError(
                f"model.ranks: must stay for layers that have not all of VGG-19's channels, got {new.ranks[index]} for "
                f"{name} with {new.widths[index]} of {wanted}"
            )


@torch.no_grad()
def grow(
    old: CompactNetwork,
    teacher: CompactNetwork,
    images: Sequence[Tensor],
    ranks: Sequence[int],
    input_ranks: Sequence[int],
    samples: int = 60_000,
    seed: int = 0,
) -> CompactNetwork:
    """Make a student of higher ranks that errs less than the old one, from images (1, 3, h, w), RGB in [0, 1].

    It must be one that `check_growth` lets pass.
    """
    new = CompactNetwork(old.widths, teacher.widths, ranks, input_ranks)
    check_growth(old, new)
    new.maps.load_state_dict(old.maps.state_dict())
    maps = LayerSamples(teacher, images, samples, seed)
    for index in range(len(NAMES)):
        targets = maps.targets(index)
        if new.ranks[index] == old.ranks[index]:
            for mine, its in zip(new.factors(index), old.factors(index), strict=True):
                mine.load_state_dict(its.state_dict())
        else:
            _grow_layer(index, old, new, maps, targets)
        maps.pass_on(index, partial(new.convolve, index))
    return new


def _grow_layer(index: int, old: CompactNetwork, new: CompactNetwork, maps: LayerSamples, targets: Tensor) -> None:
    """Give the new student's layer the old one's factors, and fill in what they have not."""
    returned = maps.responses(partial(old.convolve, index))
    wrong = torch.where((targets > 0) | (returned > 0), targets - returned, 0)
    patches = maps.patches()
    weight = regress(patches, wrong)
    explained = (patches @ weight.T).double()
    more = new.ranks[index] - old.ranks[index]
    columns = torch.linalg.eigh(explained.T @ explained).eigenvectors[:, -more:].float()
    core = torch.einsum("or,oi->ri", columns, weight).view(more, -1, 3, 3)

    expansion, before = new.expansion(index), old.expansion(index)
    assert expansion is not None and before is not None
    wider = torch.cat([before.weight, columns[:, :, None, None]], dim=1)
    expansion.load_state_dict(before.state_dict() | {"weight": wider})
    convolution, narrow = new.convolution(index).weight.zero_(), old.convolution(index).weight
    convolution[: len(narrow), : narrow.shape[1]] = narrow
    reduction, before = new.reduction(index), old.reduction(index)
    if reduction is None or before is None:
        convolution[len(narrow) :] = core
        return
    rows = before.weight
    if (seen := new.input_ranks[index] - old.input_ranks[index]) > 0:
        _, matrix = leading_inputs(core, second_moments(maps.responses(lambda x: x)), seen)
        rows = torch.cat([rows, matrix[:, :, None, None]])
    reduction.weight.copy_(rows)
    convolution[len(narrow) :] = regress(maps.patches(reduction), wrong @ columns).view(more, -1, 3, 3)
