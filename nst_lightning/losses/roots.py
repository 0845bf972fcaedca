"""The trace of the square root of positive semidefinite matrices, with its gradient.

The gradient of tr A^½ is ½ A^-½, infinite where A is singular, and covariances of few cells are. So what is computed is
tr f(A) of f(λ) = λ / √(λ + ε) with an ε of what rounding leaves of a zero; its gradient f'(A) is finite.

On a CPU it comes from LAPACK's eigenvalues: of a matrix of 160 channels they take 5 ms, and the iteration below that
accelerators need takes as long in double precision; in single precision it is faster, and loses the weak axes. An
accelerator takes milliseconds for the eigenvalues of one small matrix, waits for the host meanwhile, or has none (MPS);
products of all matrices at once take it microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nst_lightning.hardware.accelerator import prefers_large_operations
from nst_lightning.hardware.numerics import widest_dtype

_STEPS = {1e-12: 12, 1e-7: 8, 1e-6: 8}  # that bring every eigenvalue's root to its end, by the smallest
SMALLEST = 1e-30  # norm of a matrix, or its ε would be lost even in single precision
_ROUNDS = 100  # of the search for the best polynomial; it needs some five


class Root(NamedTuple):
    """Of one matrix A (n, n)."""

    trace: Tensor  # tr f(A), a scalar
    slope: Tensor  # f'(A), (n, n): the gradient of that trace


def rounding(dtype: torch.dtype) -> float:
    """What eigenvalues of sums of products of a type are known to, in units of the largest."""
    return 1e-12 if dtype == torch.float64 else 1e-7


def roots(matrices: Sequence[Tensor], epsilons: Sequence[Tensor]) -> list[Root]:
    """See the top of this file.

    Args:
        matrices: Symmetric, (n, n) each, without negative eigenvalues but for rounding; NaN makes NaN.
        epsilons: ε of each, a scalar.
    """
    if prefers_large_operations(matrices[0].device):
        return _by_products(matrices, epsilons)
    return [by_eigenvalues(matrix, epsilon) for matrix, epsilon in zip(matrices, epsilons, strict=True)]


def smoothed(values: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
    """F and f' of numbers."""
    beyond = values.clamp(min=0) + epsilon
    root = beyond.sqrt()
    return values / root, (0.5 * values.clamp(min=0) + epsilon) / beyond / root


def by_eigenvalues(matrix: Tensor, epsilon: Tensor) -> Root:
    """The root of one matrix, from its eigenvalues."""
    values, vectors = eigenvectors(matrix)
    value, slope = smoothed(values, epsilon)
    return Root(value.sum(), (vectors * slope) @ vectors.T)


def eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (n,), ascending, and eigenvectors in columns, (n, n); NaN if the matrix holds NaN.

    On the CPU, as accelerators are slower at this, or have none. In single precision LAPACK now and then gives up on a
    matrix of low rank, which a small picture's covariance is, or MKL returns NaN without a word (2024.2, with MKL_CBWR
    on a processor of AMD's); in double precision they do not. They also give up on NaN, which is for the optimiser to
    notice, not the end of a run.
    """
    given = matrix.cpu()
    try:
        values, vectors = torch.linalg.eigh(given)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        values, vectors = given.diagonal() * torch.nan, given * torch.nan
    if not bool(values.sum().isfinite()) and bool(given.isfinite().all()):
        values, vectors = torch.linalg.eigh(given.double())
    return values.to(matrix), vectors.to(matrix)


def _by_products(matrices: Sequence[Tensor], epsilons: Sequence[Tensor]) -> list[Root]:
    """The roots of all matrices together, without a value that the host reads.

    With B = (A + ε) / s, all eigenvalues in [ρ, 1], the iteration Q = a + b ZY + c (ZY)², Y ← Y Q, Z ← Q Z from Y = B,
    Z = 1 brings Z to B^-½ (Higham, *Functions of Matrices*, 2008, section 6.7, for the coupling; the polynomials are
    those of `_polynomials`). Then f(A) = A Z / √s and f'(A) = Z / 2√s + ε Z³ / 2√s³. In double precision the trace is
    right to 1e-11 and the slope to 1e-8 for an ε of 1e-7 of the matrix's norm; in single precision, which MPS has to
    take, for 1e-6 the trace to 1e-4, and the slope times the matrix to 0.005.
    """
    exact, size = widest_dtype(matrices[0].device), max(len(matrix) for matrix in matrices)
    given = torch.stack([_padded(matrix.to(exact), size) for matrix in matrices])
    smallest = rounding(matrices[0].dtype) if exact == torch.float64 else 1e-6
    one = torch.eye(size, dtype=exact, device=given.device)
    norm = torch.linalg.matrix_norm(given).clamp(min=SMALLEST)[:, None, None]
    epsilon = torch.stack([epsilon.to(exact) for epsilon in epsilons])[:, None, None].maximum(norm * smallest)
    scale = norm + epsilon
    y, z = (given + epsilon * one) / scale, one.expand_as(given)
    for a, b, c in _polynomials(smallest):
        both = z @ y
        q = b * both
        q.diagonal(dim1=1, dim2=2).add_(a)  # in place, as these matrices may be large for a small picture
        q.baddbmm_(both, both, alpha=c)
        del both
        y, z = y @ q, q @ z
    inverse = z / scale.sqrt()
    del y, z, q
    traces = (given * inverse).sum((1, 2))
    slopes = torch.baddbmm(0.5 * inverse, inverse @ inverse, inverse * (0.5 * epsilon))
    return [
        Root(trace.to(matrix), slope[: len(matrix), : len(matrix)].to(matrix))
        for trace, slope, matrix in zip(traces, slopes, matrices, strict=True)
    ]


def _padded(matrix: Tensor, size: int) -> Tensor:
    more = size - len(matrix)
    return torch.nn.functional.pad(matrix, (0, more, 0, more))


@cache
def _polynomials(smallest: float) -> list[tuple[float, float, float]]:
    """Coefficients a, b, c of odd polynomials a x + b x³ + c x⁵ that one after the other bring [√smallest, 1] to 1.

    Each is the one that leaves the least error on what the one before has left (Amsel et al., *The Polar Express*,
    2025, with Remez' exchange), so that 8 do for what takes Newton and Schulz' own polynomial 20.
    """
    low, high, found = (smallest / (1 + smallest)) ** 0.5, 1.0, []
    for _ in range(_STEPS[smallest]):
        if low > 0.999 * high:
            found.append((15 / 8, -10 / 8, 3 / 8))  # what they tend to
            continue
        a, b, c = _best_polynomial(low, high)
        found.append((a, b, c))
        low = a * low + b * low**3 + c * low**5
        high = 2 - low  # the error is as large on both sides
    return found


def _best_polynomial(low: float, high: float) -> tuple[float, float, float]:
    """The odd polynomial of degree 5 nearest to 1 on an interval of positive numbers."""
    inner, outer = (3 * low + high) / 4, (low + 3 * high) / 4  # where it is farthest, beside the ends
    error = np.inf
    for _ in range(_ROUNDS):
        at = np.array([low, inner, outer, high])
        equations = np.stack([at, at**3, at**5, [1, -1, 1, -1]], axis=1)
        a, b, c, now = map(float, np.linalg.solve(equations, np.ones(4)))
        if abs(error - now) < 1e-15:
            break
        error = now
        root = (9 * b * b - 20 * a * c) ** 0.5
        inner, outer = (((-3 * b + sign * root) / (10 * c)) ** 0.5 for sign in (-1, 1))
    return a, b, c
