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
quotient over the pairs of the history, smoothed over neighbouring rings. Inner products are stored ring by ring, so C
may change at every step and the direction is still that of BFGS from H0, exactly.

A run that goes on at another size passes γC on (`LBFGS.curvature`, `LBFGS.begin_with`): its first step is then a
quasi-Newton step, and its first pairs, which say little alone, are averaged with what was known.

Departures from the textbook: there is no line search (one step is one evaluation, the step length is ``lr``); the first
step has a stated size instead of ``1/‖g‖₁``, so that the run depends on the units of neither the loss nor the image's
gradient; and everything that depends on values is a mask, so that an accelerator is never waited for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from nst_lightning.errors import UserError, check_at_least
from nst_lightning.hardware.recording import is_worth_it
from nst_lightning.optim.curvature import Curvature
from nst_lightning.optim.hessian import InverseHessian
from nst_lightning.optim.metric import joined
from nst_lightning.optim.pairs import beside, empty_pairs, expect_pair, open_slots, with_rows
from nst_lightning.optim.recorded import RecordedSteps
from nst_lightning.optim.step import saves_memory, take_step

HistoryDtype = Literal["float32", "bfloat16"]
Rules = Literal["image", "torch"]
_Numbers = Mapping[str, float]

_IMAGE_DIMENSIONS = 3


class LBFGS(Optimizer):
    """L-BFGS for images: fixed buffers, masks instead of branches, one evaluation of the closure a step.

    Args:
        params: Parameters to optimise, in one group.
        lr: Factor on every step but the first; 1 is the quasi-Newton step itself.
        history_size: Number of pairs; the memory is ``2 * history_size + 5`` images, and 1.5 for the metric. A run of
            fewer evaluations has one pair less than it has evaluations, and takes memory for no more.
        first_step: Root mean square change of the parameters made by the first step (and by the first after a
            restart), in the parameters' units: for an image in [0, 1], 0.01 is one percent of the range.
        max_step: Largest root mean square change of one step; longer steps are shortened.
        curvature: A pair is stored when ``sᵀy > curvature * ‖s‖ ‖y‖``; rounding noise fails this test.
        spectral_exponent: Start from an inverse Hessian that favours low spatial frequencies f by ``f^(-2 exponent)``
            (`SpectralMetric`), so that large areas of colour move as fast as fine strokes. It applies to parameters of
            the shape of images, (..., C, H, W); 0 measures changes in pixels.
        rings: Rings of spatial frequency, on each of which that favour is corrected by curvature measured on the way.
        opponent_colors: Measure it for brightness and two opponent colours each, of parameters (..., 3, H, W), which
            saves a seventh of the evaluations.
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

    Example:
        >>> image = torch.zeros(1, 3, 8, 8, requires_grad=True)
        >>> optimizer = LBFGS([image])
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = (image - 0.25).square().sum()
        ...     loss.backward()
        ...     return loss
        >>> for _ in range(10):
        ...     loss = optimizer.step(closure)
        >>> float(loss.detach()) < 1e-6
        True
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
        opponent_colors: bool = True,
        relaxation: float = 2.0,
        history_dtype: HistoryDtype = "float32",
        rules: Rules = "image",
    ) -> None:
        positive = {"lr": lr, "first_step": first_step, "max_step": max_step, "relaxation": relaxation}
        not_negative = {"curvature": curvature, "spectral_exponent": spectral_exponent}
        counts = {"history_size": history_size, "rings": rings}
        choices = {"history_dtype": history_dtype, "rules": rules}
        _check(positive, not_negative, counts, choices)
        switches = {"opponent_colors": opponent_colors, "prior": None, "expected": None}
        super().__init__(params, {**positive, **not_negative, **counts, **choices, **switches})
        if len(self.param_groups) != 1:
            raise UserError(f"params: L-BFGS takes one parameter group, got {len(self.param_groups)}; merge them")
        self._params: list[Tensor] = self.param_groups[0]["params"]
        self._made_hessian: InverseHessian | None = None
        self._steps = RecordedSteps()

    @property
    def _hessian(self) -> InverseHessian:
        """Made when it is first needed, for the sizes that the parameters then have."""
        if self._made_hessian is None:
            group = self.param_groups[0]
            self._made_hessian = InverseHessian(self._params, _exponent(group, self._params), group)
        return self._made_hessian

    def expect(self, evaluations: int | None) -> None:
        """Make room for the pairs of so many evaluations (None: for all); if there come more, the buffers grow."""
        self.param_groups[0]["expected"] = evaluations

    def memory(self) -> int:
        """Bytes that history and vectors will need on the device at most, known before the first step."""
        return sum(self.memory_for(sum(p.numel() for p in self._params), self._params[0].element_size()))

    def memory_for(
        self, numel: int, itemsize: int = 4, evaluations: int | None = None, *, at_once: bool = False
    ) -> tuple[int, int]:
        """The same for ``numel`` values of ``itemsize`` bytes.

        Args:
            numel: Values.
            itemsize: Bytes of one.
            evaluations: How many there will be; None: so many that the history is full.
            at_once: Count the history as its buffer is asked for, not as it is written, which on a CPU is when pages
                are taken: the last pair comes after the last evaluation.

        Returns:
            Bytes that are there during an evaluation, and those that a step needs on top.
        """
        return _bytes_for(self.param_groups[0], self._params, numel, itemsize, evaluations, at_once)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Evaluate once and move.

        Args:
            closure: Computes gradients and returns the loss; without it the gradients present are used.

        Returns:
            What the closure returned.
        """
        state = self.state[self._params[0]]
        group = self.param_groups[0]
        if not state:  # before the closure, so that lasting buffers come to lie before temporary ones in the heap
            state.update(_initial_state(self._params, self._hessian, group))
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        pixels = joined([torch.zeros_like(p).view(-1) if p.grad is None else p.grad.reshape(-1) for p in self._params])
        rate = group["lr"] if isinstance(group["lr"], Tensor) else pixels.new_full((), group["lr"])
        expect_pair(state)
        self._steps(take_step, state, group, self._hessian, (pixels, rate, loss))
        return loss

    def curvature(self) -> Curvature | None:
        """The inverse Hessian by spatial frequency as far as it is known, for a run that goes on at another size.

        Returns:
            None without a metric, without pairs, or for several parameters.
        """
        state = self.state[self._params[0]]
        return self._hessian.measured(state) if state else None

    def forget_recordings(self) -> None:
        """Give up what a GPU replays of the steps, and its memory; steps that follow are recorded anew."""
        self._steps.forget()

    def begin_with(self, curvature: Curvature | None) -> None:
        """Start from what a run at another size knew; to be called before the first step.

        Args:
            curvature: What `curvature` returned there.
        """
        self._made_hessian = None
        self.param_groups[0]["prior"] = None if curvature is None else list(curvature)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Accept the state of a version without `begin_with`, `expect` or opponent colours."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("prior", None)
            group.setdefault("expected", None)
            group.setdefault("opponent_colors", False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore each tensor in its own dtype, such as float64 for the small matrices, unlike the base class."""
        super().load_state_dict({**state_dict, "state": {}})  # it would make a float32 copy of each history first
        self._params = self.param_groups[0]["params"]
        self._made_hessian = None
        for index, saved in cast("dict[int, dict[str, Any]]", state_dict["state"]).items():
            self.state[self._params[index]] = _restored(saved, self._params[index].device)


def _check(positive: _Numbers, not_negative: _Numbers, counts: Mapping[str, int], choices: Mapping[str, str]) -> None:
    """Refuse options out of their ranges; of the positive ones only the longest step may be infinite."""
    hint = "; the default is a good start"
    for name, value in positive.items():
        if not value > 0 or (name != "max_step" and value == math.inf):
            raise UserError(f"{name}: must be above 0, got {value}{hint}")
    for name, value in not_negative.items():
        if not (value >= 0 and math.isfinite(value)):
            raise UserError(f"{name}: must be finite and at least 0, got {value}{hint}")
    for name, count in counts.items():
        check_at_least(name, count, 1)
    for name, choice in choices.items():
        if choice not in (allowed := get_args({"history_dtype": HistoryDtype, "rules": Rules}[name])):
            raise UserError(f"{name}: must be one of {', '.join(allowed)}, got {choice}")


def _initial_state(parameters: Sequence[Tensor], hessian: InverseHessian, group: Mapping[str, Any]) -> dict[str, Any]:
    """What the optimiser remembers before its first evaluation."""
    gradient = parameters[0].new_zeros(hessian.coordinates.numel)
    rings, saves = sum(map(len, hessian.coordinates.ring_sizes)), saves_memory(group)
    room = None if group["expected"] is None else group["expected"] - 1
    stored = torch.bfloat16 if saves else gradient.dtype
    state: dict[str, Any] = empty_pairs(gradient, rings, group["history_size"], stored, room)
    if not saves:
        state["last_point"] = joined([p.detach().reshape(-1).clone() for p in parameters])
    return state | {
        "have_last": torch.zeros((), device=gradient.device, dtype=torch.bool),
        "skipped": torch.zeros((), device=gradient.device, dtype=torch.int64),
        "last_gradient": gradient,
        "last_step": torch.zeros_like(gradient),
    }


def _restored(saved: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A copy of a saved state on a device; of the history what is in use."""
    state = {
        key: value.to(device, copy=True) if isinstance(value, Tensor) else value
        for key, value in saved.items()
        if key != "history"
    }
    history = saved["history"].to(device)
    return state | {"history": with_rows(history, len(history) // 2, open_slots(saved))}


def _bytes_for(
    group: Mapping[str, Any],
    parameters: Sequence[Tensor],
    numel: int,
    itemsize: int,
    evaluations: int | None,
    at_once: bool,
) -> tuple[int, int]:
    """See `LBFGS.memory_for`."""
    m, exact = group["history_size"], not saves_memory(group)
    metric = _exponent(group, parameters) is not None
    pairs = m if evaluations is None else max(1, min(m, evaluations - 1))
    during = pairs if at_once or evaluations is None else min(m, max(0, evaluations - 2))
    pair = 2 * (itemsize if exact else 2)
    # Last gradient and step and (exactly) last point, and the metric's tables; then the new gradient or the change, and
    # the transform of one channel of three with its own temporaries.
    lasting = pair * during + (2 + exact + 0.5 * metric) * itemsize
    if at_once and is_worth_it(numel):  # the gradient where a recording has it, as it comes and as it is taken
        lasting += 2 * itemsize
    transform = numel * metric
    if at_once:  # where there is no heap, whose holes take what a step has for a moment
        transform = max(transform, beside(numel, converted=not exact))
    return int(numel * lasting), int(itemsize * (numel + transform) + numel * pair * (pairs - during))


def _exponent(group: Mapping[str, Any], parameters: Sequence[Tensor]) -> float | None:
    """Exponent of the metric; None where changes are measured in pixels, or not all parameters have images' shape."""
    images = all(p.ndim >= _IMAGE_DIMENSIONS for p in parameters)
    return group["spectral_exponent"] or None if images and group["rules"] != "torch" else None
