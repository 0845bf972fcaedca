"""Several styles in one loss give the same bits each time."""

from __future__ import annotations

import torch
from helpers import rand

from nst_lightning.losses import Layer, Wasserstein


def test_a_blend_of_three_styles_has_the_same_gradient_each_time():
    """Whichever thread takes which matrix: PyTorch numbers operations in each thread, and goes back by the numbers."""
    term, layers = Wasserstein(), [Layer(name) for name in ("a", "b", "c")]
    means = {layer: gaussian(30 + 5 * i, seed=i) for i, layer in enumerate(layers)}
    targets = {}
    for i, layer in enumerate(layers):
        styles = [(gaussian(30 + 5 * i, seed=10 * i + j + 4), 1 / 3) for j in range(3)]
        targets[layer] = term.target(layer, means[layer], term.style_target(layer, styles))
    found = set()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(20):
            leaves = {layer: (mean * 1.01).requires_grad_() for layer, mean in means.items()}
            torch.stack(list(term.losses(leaves, targets).values())).sum().backward()
            found.add(tuple(tuple(leaf.grad.flatten().tolist()) for leaf in leaves.values()))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


def gaussian(channels: int, seed: int) -> torch.Tensor:
    """Mean of F Fᵀ and of F, (C, C + 1)."""
    features = rand(channels, 4 * channels, seed=seed, dtype=torch.float32)
    return torch.cat([features @ features.T, features.sum(1, keepdim=True)], dim=1) / features.shape[1]
