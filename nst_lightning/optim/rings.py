"""Rings of coordinates, laid end to end: sums of products over each, and numbers of each spread over its coordinates.

A large image has few rings that are large and many that are small. A CPU sees to one after the other. A GPU takes some
microseconds to launch anything, so there small rings that lie side by side are one operation: of vectors that are
zero outside of a ring, as many as there are rings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.hardware.accelerator import prefers_large_operations

_SMALL = 1 << 13  # coordinates of a ring that is not worth an operation of its own
MOST = 1 << 18  # rings times coordinates of those that are taken together; three times as many values are made


class Run(NamedTuple):
    """Rings that are worked on at once."""

    first: int  # the first ring
    last: int  # the one after the last
    part: slice  # coordinates
    ring: Tensor | None  # (n,), that of each coordinate, counted from the first; None if there is one


class Rings:
    """Rings of so many coordinates each, on a device."""

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        self._sizes = list(sizes)
        self._device = device
        self._at_once = prefers_large_operations(device)
        self._runs: dict[tuple[int, int], list[Run]] = {}

    def __len__(self) -> int:
        return len(self._sizes)

    def add_products(self, into: Tensor, rows: Tensor, vectors: Tensor, chunk: slice) -> None:
        """Add inner products over each ring.

        Args:
            into: (rings, m, k).
            rows: (m, n), as far as the chunk goes.
            vectors: (k, n), likewise.
            chunk: Which coordinates these are.
        """
        for first, last, part, ring in self._of(chunk):
            if not self._at_once:
                # In this order: vectors by rows has other last bits for other numbers of threads, of MKL.
                into[first].add_(rows[:, part] @ vectors[:, part].T)
                continue
            if ring is None:
                into[first].addmm_(rows[:, part], vectors[:, part].T)
                continue
            count = last - first
            member = ring == torch.arange(count, device=ring.device, dtype=ring.dtype)[:, None, None]
            masked = torch.where(member, vectors[:, part], 0).flatten(0, 1)  # (rings * k, n)
            products = (rows[:, part] @ masked.T).view(len(rows), count, len(vectors))
            into[first:last].add_(products.transpose(0, 1))

    def spread(self, factors: Tensor, chunk: slice) -> Tensor:
        """A number of each ring, (rings,), at each of its coordinates in a chunk, (n,)."""
        if not self._at_once:
            of_rings = factors.unbind()
            return torch.cat([of_rings[ring].expand(part.stop - part.start) for ring, part in self.parts(chunk)])
        result = factors.new_empty(chunk.stop - chunk.start)
        for first, last, part, ring in self._of(chunk):
            result[part] = factors[first] if ring is None else factors[first:last].index_select(0, ring)
        return result

    def parts(self, chunk: slice) -> Iterator[tuple[int, slice]]:
        """Which rings a chunk touches, and where in the chunk each lies."""
        begin = 0
        for ring, size in enumerate(self._sizes):
            first, last = max(begin, chunk.start), min(begin + size, chunk.stop)
            if first < last:
                yield ring, slice(first - chunk.start, last - chunk.start)
            begin += size

    def _of(self, chunk: slice) -> list[Run]:
        key = chunk.start, chunk.stop
        if key not in self._runs:
            self._runs[key] = [self._run(found) for found in _grouped(list(self.parts(chunk)), self._at_once)]
        return self._runs[key]

    def _run(self, found: list[tuple[int, slice]]) -> Run:
        (first, start), (last, end) = found[0], found[-1]
        ring: Tensor | None = None
        if len(found) > 1:
            lengths = torch.tensor([part.stop - part.start for _, part in found])
            ring = torch.repeat_interleave(torch.arange(len(found)), lengths).to(self._device, torch.int32)
        return Run(first, last + 1, slice(start.start, end.stop), ring)


def _grouped(parts: list[tuple[int, slice]], at_once: bool) -> Iterator[list[tuple[int, slice]]]:
    """Neighbours that are small, together; each other one alone."""
    group: list[tuple[int, slice]] = []
    for found in parts:
        size = found[1].stop - found[1].start
        length = found[1].stop - group[0][1].start if group else size
        if group and not (at_once and size < _SMALL and (len(group) + 1) * length <= MOST):
            yield group
            group = []
        group.append(found)
        if size >= _SMALL:
            yield group
            group = []
    if group:
        yield group
