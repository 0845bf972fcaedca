"""What terms say of their matrices of cells by cells, held against the tensors that are there."""

from __future__ import annotations

import pytest
import torch
from terms import Alone
from torch.utils import _pytree as pytree

from nst_lightning.losses import Gram, NearestNeighbour, Palette, RelaxedEMD, SelfSimilarity

SAMPLES = 100
SQUARE = 4 * SAMPLES**2  # bytes


def map_of(channels, seed):
    return torch.rand(1, channels, 20, 20, generator=torch.Generator().manual_seed(seed))


def squares(tensors):
    """Bytes of those that have a value for each pair of samples."""
    found = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(bytes_ for bytes_ in found.values() if bytes_ >= SQUARE)


@pytest.mark.parametrize(
    ("term", "channels"),
    [
        (SelfSimilarity(samples=SAMPLES), 8),
        (RelaxedEMD(samples=SAMPLES), 8),
        (Palette(samples=SAMPLES), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stays_until_the_pass_back_is_what_is_said(term, channels):
    styles = [(map_of(channels, 1), 1.0)] if term.group == "style" else []
    alone = Alone(term, map_of(channels, 0), styles)
    kept = [leaf for leaf in pytree.tree_leaves(alone.target) if isinstance(leaf, torch.Tensor)]
    saved, image = [], map_of(channels, 2).requires_grad_()

    def keep(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        alone.value(image)
    said = term.matrices(20 * 20)
    assert squares(kept) == said.target
    others = {tensor.untyped_storage().data_ptr() for tensor in kept}
    assert squares([one for one in saved if one.untyped_storage().data_ptr() not in others]) == said.left
    assert said.passing == 4 * SQUARE


@pytest.mark.parametrize("term", [SelfSimilarity(), RelaxedEMD(), Palette()])
def test_few_cells_have_small_matrices(term):
    assert term.matrices(1024) == term.matrices(9999)
    assert term.matrices(512).passing * 4 == term.matrices(1024).passing == 16 * 1024**2


@pytest.mark.parametrize("term", [Gram(), NearestNeighbour()])
def test_others_have_none(term):
    assert term.matrices(10**6) == (0, 0, 0)
