"""What a term that is quadratic in the features needs of a linear map from narrow features to full ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.hardware.accelerator import multiplies_halves
from nst_lightning.hardware.numerics import one_thread


class Projection(NamedTuple):
    """A linear map W from narrow to full features, and what inner products of channels need to know of it."""

    root: Tensor  # (c, c) matrix R with RᵀR = WᵀW: distances between R F are those between W F
    matrix: Tensor  # W itself, (C, c)
    moments: Tensor  # WᵀW, (c, c)

    @property
    def channels(self) -> int:
        """C, of the full features."""
        return self.matrix.shape[0]


def projection_of(matrix: Tensor | None) -> Projection | None:
    """What terms need of a linear map (C, c), with a root from the eigenvalues of its moments."""
    if matrix is None:
        return None
    exact = matrix.detach().double().cpu()  # once, and some devices have no float64
    with one_thread():
        moments = exact.T @ exact
        values, vectors = torch.linalg.eigh(moments)
    root = values.clamp(min=0).sqrt()[:, None] * vectors.T
    device = matrix.device
    return Projection(root.to(device, torch.float32), matrix.detach(), moments.to(device, torch.float32))


def cells_energy(features: Tensor, projection: Projection | None, network: torch.dtype | None = None) -> Tensor:
    """Sum of squares of (1, c, h, w) features after projection, Σ fᵀ WᵀW f.

    It is summed in two steps, as threads would share out a single one, and its last bits depend on how many there are.

    Args:
        features: In float32 or wider.
        projection: None: the features are VGG-19's own.
        network: Type of its arithmetic: if that is bfloat16, products with WᵀW are, too, where it is fast. A difference
            is narrowed after it was taken, which costs 2⁻⁹ of each of its values and not of the features'.

    Returns:
        A scalar of the features' type.
    """
    if projection is None:
        return features.square().sum((0, 2, 3)).sum()
    # float16 lacks the range for such products; bfloat16 has float32's.
    narrows = network == torch.bfloat16 and multiplies_halves(features.device)
    moments = projection.moments.to(torch.bfloat16 if narrows else features.dtype)
    with torch.no_grad():
        cells = features.permute(0, 2, 3, 1)
        flat = cells.reshape(-1, cells.shape[-1]).to(moments.dtype)
        products = torch.mm(flat, moments).view(cells.shape).permute(0, 3, 1, 2)
    result: Tensor = _Quadratic.apply(features, products, (0, 2, 3))
    return result


def pairs_energy(matrix: Tensor, projection: Projection | None) -> Tensor:
    """Sum of squares of a matrix of pairs of channels (c, c) after projection, ‖W D Wᵀ‖² = Σ D ∘ (WᵀW D WᵀW)."""
    if projection is None:
        return matrix.square().sum(0).sum()  # in two steps, as in `cells_energy`
    moments = projection.moments.to(matrix.dtype)
    with torch.no_grad():
        products = moments @ matrix @ moments
    result: Tensor = _Quadratic.apply(matrix, products, (0,))
    return result


class _Quadratic(torch.autograd.Function):
    """The sum of x times its products with symmetric matrices, first over some dimensions, then over the others.

    Its gradient is twice the products, which autograd would compute again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, products: Tensor, first: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(products)
        return (x * products).sum(first).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * (2 * upstream), None, None
