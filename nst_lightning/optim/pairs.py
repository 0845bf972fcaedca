"""The pairs of L-BFGS in a ring buffer on the device, their inner products, and the sums made of them.

Nothing here reads a value on the host: a pair that is refused is written as what its slot held before. All buffers lie
in the optimiser's state, under the names by which checkpoints know them; what is computed from them is not stored.

What the host knows is how many pairs there can be: one less than there were gradients. Slots beyond are not looked at,
so a buffer of fewer slots gives the same bits as long as it has one for each pair, and on a CPU those that are not yet
written take no memory. A buffer that turns out to be too short, because a run goes on for longer than it was made for,
is replaced by a longer one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nst_lightning.hardware.memory import shares_memory
from nst_lightning.hardware.numerics import widest_dtype
from nst_lightning.optim.rings import MOST, Rings

# Coordinates worked on at a time; a history of another dtype is converted in chunks of the second length.
_CHUNK, _CONVERTED_CHUNK = 1 << 22, 1 << 18


class InnerProducts(NamedTuple):
    """Inner products of m pairs with each other and with the gradient g, oldest pair first, 0 for slots not in use.

    m is the number of pairs that there can be by now.
    """

    sy: Tensor  # (m, m), sᵢᵀyⱼ
    yy: Tensor  # (rings, m, m), yᵢᵀyⱼ
    ss: Tensor  # (rings, m), sᵢᵀsᵢ
    sg: Tensor  # (m,), sᵢᵀg
    yg: Tensor  # (rings, m), yᵢᵀg
    order: Tensor  # (m,), slot of each pair
    used: Tensor  # (m,), whether there is a pair
    number: Tensor  # of pairs


def empty_pairs(like: Tensor, rings: int, pairs: int, stored: torch.dtype, room: int | None = None) -> dict[str, Any]:
    """A history without pairs.

    Args:
        like: A vector of the length and device of those to come.
        rings: Of frequencies.
        pairs: The most that are remembered, m.
        stored: Type of the vectors' values.
        room: For how many there are slots; None: for all.
    """
    device, slots = like.device, pairs if room is None else max(1, min(pairs, room))
    small = widest_dtype(device)  # the small matrices cost nothing in double precision
    return {
        "history": lazy_zeros((2 * slots, len(like)), stored, device),  # rows of S, then of Y
        "sy": torch.zeros(pairs, pairs, device=device, dtype=small),  # by slot
        "yy": torch.zeros(rings, pairs, pairs, device=device, dtype=small),  # by ring and slot
        "ss": torch.zeros(rings, pairs, device=device, dtype=small),
        "newest": torch.full((), pairs - 1, device=device, dtype=torch.int64),  # slot of the newest pair
        "count": torch.zeros((), device=device, dtype=torch.int64),
        "gradients": 0,  # how many there were, up to m + 1
    }


def lazy_zeros(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros which on a CPU take memory where they are written only: the system gives what is read as zeros for free."""
    if not shares_memory(device):
        return torch.zeros(shape, dtype=dtype, device=device)
    block = np.zeros(shape[0] * shape[1] * dtype.itemsize, np.uint8)  # of calloc, as PyTorch's are not
    return torch.from_numpy(block).view(dtype).view(shape)


def _pairs_so_far(state: Mapping[str, Any]) -> int:
    """How many pairs there can be; the most, where the state of an older version does not say."""
    pairs = len(state["sy"])
    return max(1, min(pairs, int(state.get("gradients", pairs + 1)) - 1))


def open_slots(state: Mapping[str, Any]) -> int:
    """How many slots are looked at: those that may hold pairs.

    On a GPU all that there are: what it makes again and again is recorded, with the shapes that it has.
    """
    history = state["history"]
    return _pairs_so_far(state) if shares_memory(history.device) else len(history) // 2


def expect_pair(state: dict[str, Any]) -> None:
    """Count the gradient that is about to come, and make room for its pair."""
    pairs, before = len(state["sy"]), open_slots(state)
    state["gradients"] = min(pairs + 1, int(state.get("gradients", pairs + 1)) + 1)
    slots, needed = len(state["history"]) // 2, _pairs_so_far(state)
    if slots < needed:  # the run goes on for longer than it was to
        state["history"] = with_rows(state["history"], min(pairs, max(needed, 2 * slots)), before)


def with_rows(history: Tensor, slots: int, used: int) -> Tensor:
    """A buffer of so many slots with the first ones, which are in use, of another."""
    before = len(history) // 2
    longer = lazy_zeros((2 * slots, history.shape[1]), history.dtype, history.device)
    longer[:used], longer[slots : slots + used] = history[:used], history[before : before + used]
    return longer


class PairHistory:
    """View of an optimiser's state, with what `empty_pairs` returned, as pairs in rings of so many coordinates."""

    def __init__(self, state: dict[str, Any], rings: Rings) -> None:
        self._state, self._rings = state, rings
        self._open = open_slots(state)
        self._vectors: Tensor = state["history"]
        self._slots = len(self._vectors) // 2

    def _chunks(self, dtype: torch.dtype) -> list[slice]:
        size = _CHUNK if self._vectors.dtype == dtype else _CONVERTED_CHUNK
        return chunks(self._vectors.shape[1], size)

    def _rounded(self, vectors: Tensor) -> Tensor:
        """Vectors in their own dtype, with the values that the history will hold."""
        stored = self._vectors.dtype
        return vectors if vectors.dtype == stored else vectors.to(stored).to(vectors.dtype)

    def products_of_pair(self, step: Tensor, change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of a step s and the change of the gradient y, (n,) each, as they would be stored: sᵀs, sᵀy and yᵀy."""
        pair = torch.zeros(2, 2, device=step.device, dtype=step.dtype)
        for chunk in self._chunks(step.dtype):
            both = self._rounded(torch.stack([step[chunk], change[chunk]]))
            pair += both @ both.T
        (ss, sy), (_, yy) = pair.to(self._state["sy"].dtype)
        return ss, sy, yy

    def store(self, step: Tensor, change: Tensor, gradient: Tensor, accept: Tensor, finite: Tensor) -> InnerProducts:
        """Store a step and change of the gradient, and compute all inner products in one pass over the history.

        Vectors are (n,). Two boolean scalars say whether to accept the pair, and whether the history goes on, being
        finite, or restarts without pairs.
        """
        state, m, k = self._state, len(self._state["sy"]), self._open
        # A refused pair writes its slot's old content back, so the slot moves on only when the pair is stored.
        newest = torch.where(accept, (state["newest"] + 1) % m, state["newest"])
        count = torch.where(accept, (state["count"] + 1).clamp(max=m), state["count"]) * finite
        state.update(newest=newest, count=count)
        slot = newest % k  # itself, but before the first pair
        rows = torch.stack([slot, slot + self._slots])
        products = gradient.new_zeros(len(self._rings), 2 * k, 3)
        for chunk in self._chunks(gradient.dtype):
            vectors = torch.stack([step[chunk], change[chunk], gradient[chunk]])
            vectors[:2] = self._rounded(vectors[:2])
            stored = self._vectors[:, chunk]
            stored.index_copy_(0, rows, torch.where(accept, vectors[:2].to(stored.dtype), stored.index_select(0, rows)))
            for half, begin in ((slice(0, k), 0), (slice(k, 2 * k), self._slots)):
                self._rings.add_products(
                    products[:, half], stored[begin : begin + k].to(gradient.dtype), vectors, chunk
                )
        return self._updated(products, accept)

    def _updated(self, products: Tensor, accept: Tensor) -> InnerProducts:
        """Enter the newest pair's products (rings, 2m, 3), of S and Y with s, y and g, into the small matrices."""
        state, k = self._state, self._open
        newest = state["newest"] % k
        sy, yy, ss = state["sy"][:k, :k], state["yy"][:, :k, :k], state["ss"][:, :k]
        s_s, s_y, s_g = products[:, :k].to(sy.dtype).unbind(2)
        y_s, y_y, y_g = products[:, k:].to(sy.dtype).unbind(2)
        _write(sy, newest, accept, row=y_s.sum(0), column=s_y.sum(0))
        _write(yy, newest, accept, row=y_y, column=y_y)
        slot = newest.view(1)
        ss.index_copy_(1, slot, torch.where(accept, s_s.index_select(1, slot), ss.index_select(1, slot)))

        order = (newest + 1 + torch.arange(k, device=newest.device)) % k
        used = torch.arange(k, device=newest.device) >= k - state["count"]
        both = used[:, None] & used
        sy, yy = (torch.where(both, x[..., order, :][..., order], 0) for x in (sy, yy))
        ss, s_g, y_g = (torch.where(used, x[..., order], 0) for x in (ss, s_g.sum(0), y_g))
        return InnerProducts(sy, yy, ss, s_g, y_g, order, used, state["count"])

    def combine(self, of_s: Tensor, of_y: Tensor, factors: Tensor, gradient: Tensor, out: Tensor) -> Tensor:
        """S a + c (g - Y b), chunk by chunk into `out`; a and b are (m,), by slot, c is (rings,), g (n,)."""
        for chunk in self._chunks(gradient.dtype):
            factor = self._rings.spread(factors, chunk)
            s, y = (self._vectors[i : i + self._open, chunk].to(gradient.dtype) for i in (0, self._slots))
            out[chunk] = of_s @ s + factor * (gradient[chunk] - of_y @ y)
        return out


def chunks(length: int, size: int = _CHUNK) -> list[slice]:
    """Slices of a vector that are worked on one after the other, so that no copy is of full size."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def beside(length: int, *, converted: bool) -> int:
    """Values that come and go while vectors of a length are stored: three of a chunk, twice a pair, and of rings."""
    return 7 * min(length, _CONVERTED_CHUNK if converted else _CHUNK) + 4 * MOST


def _write(matrix: Tensor, slot: Tensor, accept: Tensor, *, row: Tensor, column: Tensor) -> None:
    """Set one row and one column of square matrices in place where ``accept`` holds; they agree where they cross."""
    index = slot.view(1)
    for dim, values in ((-2, row.unsqueeze(-2)), (-1, column.unsqueeze(-1))):
        matrix.index_copy_(dim, index, torch.where(accept, values, matrix.index_select(dim, index)))
