"""What a term that is quadratic in the features needs of a linear map from narrow features to full ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.hardware.accelerator import cached_values, multiplies_halves
from nst_lightning.hardware.numerics import one_thread
from nst_lightning.losses.reference import at_least_float32


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
    exact = matrix.detach().cpu().double()  # once, and some devices have no float64
    with one_thread():
        moments = exact.T @ exact
        values, vectors = torch.linalg.eigh(moments)
    root = values.clamp(min=0).sqrt()[:, None] * vectors.T
    device = matrix.device
    return Projection(root.float().to(device), matrix.detach(), moments.float().to(device))


def multiplier(features: Tensor, projection: Projection | None, network: torch.dtype | None) -> Tensor | None:
    """WᵀW in the type in which cells of features are multiplied with it; None: the features are VGG-19's own.

    Args:
        features: Of any floating type.
        projection: Of the features.
        network: Type of its arithmetic: if that is bfloat16, these products are, too, where it is fast.
    """
    if projection is None:
        return None
    # float16 lacks the range for such products; bfloat16 has float32's.
    narrows = network == torch.bfloat16 and multiplies_halves(features.device)
    return projection.moments.to(torch.bfloat16 if narrows else torch.promote_types(features.dtype, torch.float32))


def cells_energy(
    features: Tensor,
    projection: Projection | None,
    network: torch.dtype | None = None,
    target: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Sum of squares of (1, c, h, w) features, or of their differences from others, after projection, Σ fᵀ WᵀW f.

    It is computed in strips of rows, so that nothing in float32 is as large as the features of a network in half
    precision. Each is summed in two steps, as threads would share out a single one, and its last bits depend on how
    many there are.

    Args:
        features: Of any floating type; they are widened to float32.
        projection: None: the features are VGG-19's own.
        network: Type of its arithmetic: if that is bfloat16, products with WᵀW are, too, where it is fast. A difference
            is narrowed after it was taken, which costs 2⁻⁹ of each of its values and not of the features'.
        target: Of the same shape; None: zeros.
        weights: (1, 1, h, w), how often each cell counts; None: once.

    Returns:
        A scalar in float32 or wider.
    """
    moments = multiplier(features, projection, network)
    result: Tensor = _CellsEnergy.apply(features, moments, target, weights)
    return result


class _CellsEnergy(torch.autograd.Function):
    """`cells_energy`; half of the gradient is stored, in the type of the features."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, moments: Tensor | None, target: Tensor | None, weights: Tensor | None
    ) -> Tensor:
        kind = features.dtype if features.dtype != torch.float16 else torch.float32  # whose range is needed
        half = torch.empty_like(features, dtype=kind) if ctx.needs_input_grad[0] else None
        total: Tensor | None = None
        for rows in strips(features):
            difference = at_least_float32(features[..., rows, :])
            if target is not None:
                difference = difference - at_least_float32(target[..., rows, :])
            root = None if weights is None else weights[..., rows, :].sqrt()
            if root is not None:
                difference = difference * root
            products = difference if moments is None else times(difference, moments)
            here = (difference * products).sum((0, 2, 3))
            total = here if total is None else total + here
            if half is not None:
                half[..., rows, :] = products if root is None else products * root
        ctx.save_for_backward(half)
        assert total is not None
        return total.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.saved_tensors[0] * (2 * upstream), None, None, None


def strips(features: Tensor) -> list[slice]:
    """Rows of (1, c, h, w) features of which a cache holds so many at a time."""
    height, row = features.shape[2], features.shape[1] * features.shape[3]
    count = max(1, min(height, cached_values(features.device) // max(1, row)))
    return [slice(top, min(top + count, height)) for top in range(0, height, count)]


def times(features: Tensor, matrix: Tensor) -> Tensor:
    """Each cell of (1, c, h, w) features times a matrix (c, c), in its type."""
    cells = features.permute(0, 2, 3, 1)
    products = torch.mm(cells.reshape(-1, cells.shape[-1]).to(matrix.dtype), matrix)
    return products.view(cells.shape).permute(0, 3, 1, 2)


def pairs_energy(matrix: Tensor, projection: Projection | None) -> Tensor:
    """Sum of squares of a matrix of pairs of channels (c, c) after projection, ‖W D Wᵀ‖² = Σ D ∘ (WᵀW D WᵀW)."""
    if projection is None:
        return matrix.square().sum(0).sum()  # in two steps, as in `cells_energy`
    moments = projection.moments.to(matrix.dtype)
    with torch.no_grad():
        products = moments @ matrix @ moments
    result: Tensor = _Quadratic.apply(matrix, products)
    return result


class _Quadratic(torch.autograd.Function):
    """The sum of x times its products with symmetric matrices, first over its rows, then over the others.

    Its gradient is twice the products, which autograd would compute again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, products: Tensor) -> Tensor:
        ctx.save_for_backward(products)
        return (x * products).sum(0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * (2 * upstream), None
