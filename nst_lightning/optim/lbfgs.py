"""Limited-memory BFGS that stays on the device: one evaluation a step, no reads by the host.

With pairs ``s_i = x_{i+1} - x_i`` and ``y_i = g_{i+1} - g_i`` (oldest first, as columns of S and Y), ``R`` the upper
triangle of ``SᵀY``, ``D`` its diagonal and ``H0 = γC`` with ``γ = sᵀy / yᵀCy`` of the newest pair, the inverse Hessian
is (Byrd, Nocedal and Schnabel, *Representations of quasi-Newton matrices*, 1994, equation 3.1)::

    H g = γ C (g - Y w) + S R⁻ᵀ ((D + γ YᵀCY) w - γ YᵀC g),    w = R⁻¹ Sᵀ g

It equals the usual two-loop recursion (Nocedal and Wright, algorithm 7.4) but needs the history only twice, once for
inner products and once for the sum; all recursion happens in two triangular solves of the size of the history. As in
vector-free L-BFGS (Chen, Wang and Zhou, 2014) the number of reductions over the image does not grow with the history.

All this happens in the coordinates of a metric (`SpectralMetric`), where C is a factor for each ring of spatial
frequencies. Were the Hessian diagonal in frequency, ``c = ‖s‖ / ‖y‖`` on a ring would be its inverse; so C is that
quotient over the pairs of the history, smoothed over neighbouring rings. Inner products are kept ring by ring, so C may
change at every step and the direction is still that of BFGS from H0, exactly.

A run that goes on at another size hands γC over (`LBFGS.curvature`, `LBFGS.begin_with`): its first step is then a
quasi-Newton step, and its first pairs, which say little alone, are averaged with what was known.

Departures from the textbook: there is no line search (one step is one evaluation, the step length is ``lr``); the first
step has a stated size instead of ``1/‖g‖₁``, so that the run depends on the units of neither the loss nor the image's
gradient; and everything that depends on values is a mask, so that an accelerator is never waited for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from nst_lightning.errors import UserError
from nst_lightning.hardware.numerics import widest_dtype
from nst_lightning.optim.curvature import Curvature, initial_hessian, ring_scales
from nst_lightning.optim.metric import SpectralMetric

HistoryDtype = Literal["float32", "bfloat16"]
Rules = Literal["image", "torch"]

_IMAGE_DIMENSIONS = 3
# Coordinates worked on at a time; a history of another type is widened in pieces of this length.
_CHUNK, _WIDENED = 1 << 22, 1 << 18


class LBFGS(Optimizer):
    """L-BFGS for images: fixed buffers, masks instead of branches, one evaluation of the closure a step.

    Args:
        params: Parameters to optimise, in one group.
        lr: Factor on every step but the first; 1 takes the quasi-Newton step as it is.
        history_size: Number of pairs kept; the memory is ``2 * history_size + 5`` images, and 1.5 for the metric.
        first_step: Root mean square change of the parameters made by the first step (and by the first after a
            restart), in the parameters' units: for an image in [0, 1], 0.01 is one percent of the range.
        max_step: Largest root mean square change of one step; longer steps are shortened.
        curvature: A pair is kept when ``sᵀy > curvature * ‖s‖ ‖y‖``; rounding noise fails this test.
        spectral_exponent: Start from an inverse Hessian that favours low spatial frequencies f by ``f^(-2 exponent)``
            (`SpectralMetric`), so that large areas of colour move as fast as fine strokes. It applies to parameters of
            the shape of images, (..., C, H, W); 0 measures changes in pixels.
        rings: Number of rings of spatial frequency on which that favour is corrected by the curvature measured on the
            way; 1 leaves it as it is.
        relaxation: Factor on γ under the metric. Steps lean to directions of high curvature, so the γ measured along
            them is short for all others; 2 saves a sixth of the evaluations, 4 diverges.
        history_dtype: float32 (float64 for float64 parameters), or bfloat16 for half the memory: one of
            ``history_size + 5.5`` images.
        rules: image, as described here; or torch, which follows ``torch.optim.LBFGS``: a first step of
            ``min(1, 1/‖g‖₁) lr``, no longest step, pairs with ``sᵀy > 1e-10``, and changes measured in pixels.

    Raises:
        UserError: If an argument is out of its range.

    A non-finite loss or gradient never reaches the parameters: they return to the last point with finite values (with
    a bfloat16 history up to rounding, which saves the copy) and the history restarts. ``skipped`` in the state counts
    these events.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1.0,
        history_size: int = 20,
        first_step: float = 0.01,
        max_step: float = 0.1,
        curvature: float = 1e-6,
        spectral_exponent: float = 0.5,
        rings: int = 32,
        relaxation: float = 2.0,
        history_dtype: HistoryDtype = "float32",
        rules: Rules = "image",
    ) -> None:
        positive = {"lr": lr, "first_step": first_step, "max_step": max_step, "relaxation": relaxation}
        for name, value in positive.items():
            if not value > 0 or (name != "max_step" and value == math.inf):
                raise UserError(f"{name}: must be above 0, got {value}; the default is a good start")
        for name, value in {"curvature": curvature, "spectral_exponent": spectral_exponent}.items():
            if not (value >= 0 and math.isfinite(value)):
                raise UserError(f"{name}: must be finite and at least 0, got {value}; the default is a good start")
        for name, count in {"history_size": history_size, "rings": rings}.items():
            if count < 1:
                raise UserError(f"{name}: must be at least 1, got {count}; the default is a good start")
        for name, choice, allowed in (("history_dtype", history_dtype, HistoryDtype), ("rules", rules, Rules)):
            if choice not in get_args(allowed):
                raise UserError(f"{name}: must be one of {', '.join(get_args(allowed))}, got {choice}")
        defaults = {
            "lr": lr,
            "history_size": history_size,
            "first_step": first_step,
            "max_step": max_step,
            "curvature": curvature,
            "spectral_exponent": spectral_exponent,
            "rings": rings,
            "relaxation": relaxation,
            "history_dtype": history_dtype,
            "rules": rules,
            "prior": None,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise UserError(f"params: L-BFGS takes one parameter group, got {len(self.param_groups)}; merge them")
        self._params: list[Tensor] = self.param_groups[0]["params"]
        self._metrics: list[SpectralMetric] | None = None
        self._prior: Tensor | None = None  # on the device, once it is needed

    def _is_plain(self) -> bool:
        """Whether changes are measured in pixels: asked for, or no parameter for images."""
        group = self.param_groups[0]
        off = not group["spectral_exponent"] or group["rules"] == "torch"
        return off or any(p.ndim < _IMAGE_DIMENSIONS for p in self._params)

    def _make_metrics(self) -> None:
        """Take the sizes of the parameters as they are now."""
        if self._metrics is None and not self._is_plain():
            exponent, rings = self.param_groups[0]["spectral_exponent"], self.param_groups[0]["rings"]
            self._metrics = [SpectralMetric(p.shape, exponent, p.device, p.dtype, rings) for p in self._params]

    def _to_metric(self, gradient: Tensor) -> Tensor:
        """Gradient (n,) in the coordinates of the metric, in which inner products are plain sums."""
        self._make_metrics()
        if self._metrics is None:
            return gradient.clone()  # it is remembered, and the caller's is zeroed
        pieces = torch.split(gradient, [p.numel() for p in self._params])
        return _joined([metric.forward(piece) for metric, piece in zip(self._metrics, pieces, strict=True)])

    def _from_metric(self, coordinates: Tensor) -> Tensor:
        """The transpose of `_to_metric`."""
        if self._metrics is None:
            return coordinates.clone()  # as above, what comes back is the caller's
        pieces = torch.split(coordinates, [metric.numel for metric in self._metrics])
        return _joined([metric.backward(piece) for metric, piece in zip(self._metrics, pieces, strict=True)])

    @property
    def _is_lean(self) -> bool:
        """Whether memory counts more than going back to the last good point to the last bit."""
        return str(self.param_groups[0]["history_dtype"]) == "bfloat16"

    def _stored(self, dtype: torch.dtype) -> torch.dtype:
        return torch.bfloat16 if self._is_lean else dtype

    def memory(self) -> int:
        """Bytes that history and vectors will take on the device at most, known before the first step."""
        return sum(self.memory_for(sum(p.numel() for p in self._params), self._params[0].element_size()))

    def memory_for(self, numel: int, itemsize: int = 4) -> tuple[int, int]:
        """The same for parameters of another size.

        Returns:
            Bytes that stay from step to step, and those that a step takes for itself.
        """
        m: int = self.param_groups[0]["history_size"]
        kept = 2 if self._is_lean else itemsize
        plain = self._is_plain()
        # Gradient, last step and (exactly) last point, and the metric's tables; then the new gradient or the change,
        # and the transform of one channel of three, with what it needs for itself.
        vectors = 2 + (not self._is_lean) + (0 if plain else 0.5)
        return int(numel * (2 * m * kept + vectors * itemsize)), int(numel * (1 if plain else 2) * itemsize)

    def _ring_sizes(self) -> list[list[int]]:
        """Coordinates of each ring of each parameter; one ring of all where nothing is estimated."""
        if self._metrics is None or self.param_groups[0]["rings"] == 1:
            metrics = self._metrics
            return [[sum(metric.numel for metric in metrics) if metrics else sum(p.numel() for p in self._params)]]
        return [metric.sizes for metric in self._metrics]

    def _initial_state(self) -> dict[str, Any]:
        self._make_metrics()
        n = sum(part.numel() if isinstance(part, Tensor) else part.numel for part in self._metrics or self._params)
        gradient = self._params[0].new_zeros(n)
        device, m = gradient.device, self.param_groups[0]["history_size"]
        rings = sum(len(sizes) for sizes in self._ring_sizes())
        small = widest_dtype(device.type)  # the small matrices cost nothing in double precision
        exact = {} if self._is_lean else {"last_point": _joined([p.detach().reshape(-1).clone() for p in self._params])}
        return exact | {
            "history": torch.zeros(2 * m, n, device=device, dtype=self._stored(gradient.dtype)),  # rows of S, then of Y
            "sy": torch.zeros(m, m, device=device, dtype=small),  # sᵢᵀyⱼ by slot
            "yy": torch.zeros(rings, m, m, device=device, dtype=small),  # yᵢᵀyⱼ by ring and slot
            "ss": torch.zeros(rings, m, device=device, dtype=small),  # sᵢᵀsᵢ
            "newest": torch.zeros((), device=device, dtype=torch.int64),  # slot of the newest pair
            "count": torch.zeros((), device=device, dtype=torch.int64),
            "have_last": torch.zeros((), device=device, dtype=torch.bool),
            "skipped": torch.zeros((), device=device, dtype=torch.int64),
            "last_gradient": gradient,
            "last_step": torch.zeros_like(gradient),
        }

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Evaluate once and move.

        Args:
            closure: Computes gradients and returns the loss; without it the gradients present are used.

        Returns:
            What the closure returned.
        """
        state = self.state[self._params[0]]
        if not state:  # before the closure, so that what stays comes to lie before what goes in the heap
            state.update(self._initial_state())
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        g = self._to_metric(
            _joined([torch.zeros_like(p).view(-1) if p.grad is None else p.grad.reshape(-1) for p in self._params])
        )
        finite = torch.isfinite(torch.dot(g, g))
        if isinstance(loss, Tensor):
            finite = finite & torch.isfinite(loss).all()
        elif isinstance(loss, float) and not math.isfinite(loss):
            finite = torch.zeros_like(finite)
        direction = self._direction(state, g, finite)
        state["last_gradient"] = g  # if it is not finite, `have_last` keeps it from being used
        self._move(state, direction, finite)
        return loss

    def _direction(self, state: dict[str, Any], g: Tensor, finite: Tensor) -> Tensor:
        """Store the newest pair if it is good, then apply the inverse Hessian: ``H g``, or g without pairs."""
        group = self.param_groups[0]
        m = group["history_size"]
        history, sy, yy, ss = state["history"], state["sy"], state["yy"], state["ss"]
        step = state["last_step"]
        # In place, since nobody needs it any more: images may be large.
        change: Tensor = state["last_gradient"].neg_().add_(g)
        pieces = _pieces(len(g), _WIDENED if history.dtype != g.dtype else _CHUNK)
        pair = torch.zeros(2, 2, device=g.device, dtype=g.dtype)
        for piece in pieces:
            both = _remembered(torch.stack([step[piece], change[piece]]), history.dtype)
            pair += both @ both.T
        (ss_new, sy_new), (_, yy_new) = pair.to(sy.dtype)
        least = 1e-10 if group["rules"] == "torch" else group["curvature"] * (ss_new * yy_new).sqrt()
        accept = finite & state["have_last"] & (sy_new > least)

        # A refused pair writes its slot's old content back, so the slot moves on only when the pair is kept.
        newest = torch.where(accept, (state["newest"] + 1) % m, state["newest"])
        rows = torch.stack([newest, newest + m])
        count = torch.where(accept, (state["count"] + 1).clamp(max=m), state["count"]) * finite

        rings = self._ring_sizes()
        sizes = [size for of_parameter in rings for size in of_parameter]
        products = torch.zeros(len(sizes), 2 * m, 3, device=g.device, dtype=g.dtype)  # the one pass of reductions
        for piece in pieces:
            vectors = torch.stack([step[piece], change[piece], g[piece]])
            vectors[:2] = _remembered(vectors[:2], history.dtype)
            kept = history[:, piece]
            kept.index_copy_(0, rows, torch.where(accept, vectors[:2].to(kept.dtype), kept.index_select(0, rows)))
            for ring, part in _parts(sizes, piece):
                products[ring] += kept[:, part].to(g.dtype) @ vectors[:, part].T
        s_s, s_y, s_g = products[:, :m].to(sy.dtype).unbind(2)
        y_s, y_y, y_g = products[:, m:].to(sy.dtype).unbind(2)
        _write(sy, newest, accept, row=y_s.sum(0), column=s_y.sum(0))
        _write(yy, newest, accept, row=y_y, column=y_y)
        slot = newest.view(1)
        ss.index_copy_(1, slot, torch.where(accept, s_s.index_select(1, slot), ss.index_select(1, slot)))

        # Oldest first; slots not in use (fewer pairs than slots, or a restart) become identity rows with no weight.
        order = (newest + 1 + torch.arange(m, device=g.device)) % m
        used = torch.arange(m, device=g.device) >= m - count
        both = used[:, None] & used
        sy, yy = (torch.where(both, x[..., order, :][..., order], 0) for x in (sy, yy))
        ss, s_g, y_g = (torch.where(used, x[..., order], 0) for x in (ss, s_g.sum(0), y_g))
        relaxation = 1.0 if self._metrics is None else group["relaxation"]
        prior = self._prior_factors(device=g.device, dtype=sy.dtype)
        scales, gamma = initial_hessian(
            ss, yy, sy[-1, -1], count, [len(of_parameter) for of_parameter in rings], relaxation, prior
        )
        ycy, y_c_g = torch.tensordot(scales, yy, 1), scales @ y_g
        r = sy.triu(1) + torch.diag(torch.where(used, sy.diagonal(), 1))
        w = torch.linalg.solve_triangular(r, s_g[:, None], upper=True)
        u = torch.linalg.solve_triangular(
            r.T, sy.diagonal()[:, None] * w + gamma * (ycy @ w - y_c_g[:, None]), upper=False
        )
        of_s, of_y = (g.new_zeros(m).index_copy_(0, order, x.view(-1).to(g.dtype)) for x in (u, w))
        factors = (gamma * scales).to(g.dtype).unbind()
        direction = change  # its memory: it has been remembered. Without pairs g itself: weights are 0, factors 1
        for piece in pieces:
            of_ring = torch.cat([factors[ring].expand(part.stop - part.start) for ring, part in _parts(sizes, piece)])
            kept = history[:, piece].to(g.dtype)
            direction[piece] = of_s @ kept[:m] + of_ring * (g[piece] - of_y @ kept[m:])
        state.update(newest=newest, count=count)
        return direction

    def _move(self, state: dict[str, Any], direction: Tensor, finite: Tensor) -> None:
        """Step against the direction, or take the last step back if what it led to was not finite."""
        group = self.param_groups[0]
        torch.where(finite, direction, state["last_step"], out=direction)
        state["last_step"] = direction  # now, so that the old one's memory is free for what follows
        change = self._from_metric(direction)
        # Squares of a small gradient underflow, hence the peak; without the last clamp 0 * inf would be NaN.
        kind = torch.finfo(change.dtype)
        peak = torch.linalg.vector_norm(change, ord=math.inf).clamp(min=kind.tiny)
        norms = [torch.linalg.vector_norm(change[piece] / peak) for piece in _pieces(len(change), _CHUNK)]
        rms = torch.linalg.vector_norm(torch.stack(norms)) * (peak / float(change.numel()) ** 0.5)
        inverse = 1 / rms.clamp(min=kind.tiny)
        first = (min(group["first_step"], group["max_step"]) * inverse).clamp(max=kind.max)
        following = (group["max_step"] * inverse).clamp(max=group["lr"])
        if group["rules"] == "torch":
            first = (1 / torch.linalg.vector_norm(direction, ord=1)).clamp(max=1.0) * group["lr"]
            following = torch.full_like(first, group["lr"])
        # A step that led to no number is not tried again.
        known = (state["count"] > 0) | ((state["skipped"] == 0) & (group["prior"] is not None))
        length = -torch.where(known, following, first)
        numbers = [p.numel() for p in self._params]
        if not self._is_lean:
            # `last_point` is the starting point until a finite evaluation has been seen.
            point = _joined([p.reshape(-1) for p in self._params])
            torch.where(finite, point, state["last_point"], out=state["last_point"])
            torch.addcmul(state["last_point"], change, torch.where(finite, length, 0), out=change)
        for p, piece in zip(self._params, torch.split(change, numbers), strict=True):
            if self._is_lean:
                p.addcmul_(piece.view_as(p), torch.where(finite, length, -1))
            else:
                p.copy_(piece.view_as(p))
        direction.mul_(torch.where(finite, length, 0))
        state["have_last"] = finite
        state["skipped"] = state["skipped"] + (~finite)

    def curvature(self) -> Curvature | None:
        """The inverse Hessian by spatial frequency as far as it is known, for a run that goes on at another size.

        Returns:
            None without a metric, without pairs, or for several parameters.
        """
        state = self.state[self._params[0]]
        if not state or self._is_plain() or len(self._params) > 1 or not int(state["count"]):
            return None
        self._make_metrics()
        assert self._metrics is not None
        newest, squares = state["newest"], state["yy"].diagonal(dim1=1, dim2=2)
        scales = ring_scales(state["ss"].sum(1), squares.sum(1), [len(self._metrics[0].sizes)])
        gamma = state["sy"][newest, newest] / (scales @ squares[:, newest])
        factors = (gamma * scales / self._params[0].shape[-2:].numel()).log()
        return Curvature(self._metrics[0].centres, factors.tolist()) if bool(factors.isfinite().all()) else None

    def begin_with(self, curvature: Curvature | None) -> None:
        """Start from what a run at another size knew; to be called before the first step.

        Args:
            curvature: What `curvature` returned there.
        """
        self._prior = None
        self.param_groups[0]["prior"] = None if curvature is None else list(curvature)

    def _prior_factors(self, device: torch.device, dtype: torch.dtype) -> Tensor | None:
        """What was handed over, as a factor for each ring of this image."""
        prior = self.param_groups[0]["prior"]
        if prior is None or self._metrics is None or len(self._params) > 1:
            return None
        if self._prior is None:
            factors = Curvature(*prior).at(self._metrics[0].centres, self._params[0].shape[-2:].numel())
            self._prior = torch.tensor(factors, dtype=dtype, device=device)
        return self._prior

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a version that handed nothing over; see torch.optim.Optimizer."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("prior", None)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore; unlike the base class it keeps each tensor's own type, such as float64 for the small matrices."""
        super().load_state_dict({**state_dict, "state": {}})  # it would make a float32 copy of each history first
        self._params = self.param_groups[0]["params"]
        self._metrics = self._prior = None
        for index, saved in cast("dict[int, dict[str, Any]]", state_dict["state"]).items():
            parameter = self._params[index]
            self.state[parameter] = {
                key: value.to(parameter.device, copy=True) if isinstance(value, Tensor) else value
                for key, value in saved.items()
            }


def _joined(vectors: list[Tensor]) -> Tensor:
    """One vector of several; a single one as it is."""
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors)


def _remembered(vectors: Tensor, kind: torch.dtype) -> Tensor:
    """Vectors in their own type, with the values that a history of another type will hold."""
    return vectors if vectors.dtype == kind else vectors.to(kind).to(vectors.dtype)


def _pieces(length: int, size: int) -> list[slice]:
    """Slices of a vector that are worked on one after the other, so that no copy is of full size."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _parts(sizes: list[int], piece: slice) -> Iterator[tuple[int, slice]]:
    """Which rings, laid end to end, a slice touches, and where in the slice each lies."""
    begin = 0
    for ring, size in enumerate(sizes):
        first, last = max(begin, piece.start), min(begin + size, piece.stop)
        if first < last:
            yield ring, slice(first - piece.start, last - piece.start)
        begin += size


def _write(matrix: Tensor, slot: Tensor, accept: Tensor, *, row: Tensor, column: Tensor) -> None:
    """Set one row and one column of square matrices in place where ``accept`` holds; they agree where they cross."""
    index = slot.view(1)
    for dim, values in ((-2, row.unsqueeze(-2)), (-1, column.unsqueeze(-1))):
        matrix.index_copy_(dim, index, torch.where(accept, values, matrix.index_select(dim, index)))
