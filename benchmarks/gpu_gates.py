"""What `gpu_check.py` holds its figures against: gates, which should hold anywhere, and aims, for a large GPU.

A gate that does not hold is a fault. An aim is what the project wants of an H100 or H200: a smaller device that misses
it is none, and on a CPU, or with small pictures, aims say nothing and are not measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Found = dict[str, dict[str, Any]]  # what each section wrote, and its state
Figure = Callable[[Found], float | None]  # None: not measured


class Gate(NamedTuple):
    """A figure with its bounds, which it may reach."""

    words: str
    figure: Figure
    low: float = -math.inf
    high: float = math.inf
    is_aim: bool = False

    @property
    def bounds(self) -> str:
        """In words: ``at most 0.15``."""
        if self.low == self.high:
            return f"{self.low:.4g}"
        parts = [("at least", self.low), ("at most", self.high)]
        return ", ".join(f"{words} {bound:.4g}" for words, bound in parts if math.isfinite(bound))

    def holds(self, figure: float) -> bool:
        """Whether a figure lies within; NaN does not."""
        return self.low <= figure <= self.high


class Judged(NamedTuple):
    """A gate with what was measured."""

    gate: Gate
    state: str  # pass or FAILED, of an aim reached or missed, or not measured
    figure: float | None

    def __str__(self) -> str:
        """A line of the report."""
        measured = "" if self.figure is None else f"{self.figure:.4g}"
        return f"{self.state:<13}{measured:>9}  {self.gate.words} ({self.gate.bounds})"


def judge(found: Found, *, aims: bool = True) -> list[Judged]:
    """Hold what was found against all gates.

    Args:
        found: By section.
        aims: Whether this is a device, and a size, that aims are of.
    """
    judged = []
    for gate in GATES:
        figure = gate.figure(found) if aims or not gate.is_aim else None
        good, bad = ("reached", "missed") if gate.is_aim else ("pass", "FAILED")
        judged.append(Judged(gate, "not measured" if figure is None else good if gate.holds(figure) else bad, figure))
    return judged


def with_share(row: dict[str, Any], found: Found) -> dict[str, Any]:
    """A row with the share of the peak that was measured for the same format, where that is known."""
    share = _share_of_peak(row, found)
    return row if share is None else row | {"of_peak": f"{share:.0%}"}


def _share_of_peak(row: dict[str, Any], found: Found) -> float | None:
    peaks = {peak["dtype"]: peak["gigaflops"] for peak in _rows(found, "peak")}
    seconds = row.get("seconds") or row.get("milliseconds", 0) / 1000
    most = peaks.get("bfloat16" if row.get("precision") == "bf16-mixed" else "float32")
    return row["operations"] / seconds / most / 1e9 if row.get("operations") and seconds and most else None


def _rows(found: Found, section: str, **same: Any) -> list[dict[str, Any]]:
    """A section's rows that agree."""
    return [row for row in found.get(section, {}).get("rows", []) if same.items() <= row.items()]


def _values(found: Found, section: str, key: str, **same: Any) -> Iterator[float]:
    return (row[key] for row in _rows(found, section, **same) if row.get(key) is not None)


def _worst(section: str, key: str, **same: Any) -> Figure:
    """The largest value of the rows that agree, and NaN if one is."""
    return lambda found: max(
        _values(found, section, key, **same), key=lambda value: (math.isnan(value), value), default=None
    )


def _best(section: str, key: str, **same: Any) -> Figure:
    """The smallest value of the rows that agree."""
    return lambda found: min(_values(found, section, key, **same), default=None)


def _fact(section: str, key: str) -> Figure:
    return lambda found: found.get(section, {}).get("facts", {}).get(key)


def _error(section: str, key: str) -> Figure:
    def figure(found: Found) -> float | None:
        error = _fact(section, key)(found)
        return None if error is None else abs(error)

    return figure


def _beside_plain(found: Found) -> float | None:
    """At 512 px or the size next to it, in the best of the precisions."""
    nearest = min(_values(found, "evaluation", "size"), key=lambda size: abs(size - 512), default=None)
    return _best("evaluation", "ratio", size=nearest)(found)


def _of_peak(found: Found) -> float | None:
    shares = [_share_of_peak(row, found) for row in _rows(found, "evaluation", size=1024, precision="bf16-mixed")]
    return max((share for share in shares if share is not None), default=None)


def _memory(found: Found) -> float | None:
    """Of what a run took over what it said, the quotient that is farthest from 1."""
    pairs = [(row["bytes"], row["predicted"]) for row in _rows(found, "memory") if row.get("bytes")]
    return max((took / said for took, said in pairs if said), key=lambda ratio: abs(math.log(ratio)), default=None)


def _facts_of_gatys(found: Found, *names: str) -> list[float] | None:
    facts = found.get("gatys", {}).get("facts", {})
    return [facts[name] for name in names] if all(facts.get(name) for name in names) else None


def _all_made(found: Found) -> float | None:
    facts = _facts_of_gatys(found, "evaluations", "asked")
    return None if facts is None else facts[0] / facts[1]


def _warm_run(found: Found) -> float | None:
    """Seconds that all evaluations of the long run would take at the speed of those after the first few."""
    facts = _facts_of_gatys(found, "after_warm_up", "asked", "evaluations", "warm_up")
    return None if facts is None else facts[0] * facts[1] / (facts[2] - facts[3])


def _time(found: Found) -> float | None:
    """An evaluation's seconds over what the run said they would be; the clock may have ended it."""
    facts = _facts_of_gatys(found, "seconds", "evaluations", "said_seconds", "asked")
    return None if facts is None else facts[0] / facts[1] / (facts[2] / facts[3])


def _apart(found: Found) -> float | None:
    losses = list(_values(found, "processes", "loss"))
    return abs(losses[1] / losses[0] - 1) if len(losses) == 2 else None


GATES = (
    Gate("float32: error of the loss beside float64's", _worst("correctness", "loss_error", precision="32-true"),
         high=1e-3),
    Gate("float32: error of the gradient beside float64's",
         _worst("correctness", "gradient_error", precision="32-true"), high=1e-2),
    Gate("bfloat16: error of the loss beside float64's", _worst("correctness", "loss_error", precision="bf16-mixed"),
         high=2e-2),
    Gate("an evaluation at 512 px or next to it, over plain PyTorch's", _beside_plain, high=1),
    Gate("times that an evaluation reads on the host", _worst("evaluation", "host_reads"), high=0),
    Gate("times that an evaluation waits, as CUDA says", _worst("evaluation", "waits"), high=0),
    Gate("times that painterly reads on the host", _worst("painterly", "host_reads"), high=0),
    Gate("times that painterly waits, as CUDA says", _worst("painterly", "waits"), high=0),
    # Of bfloat16, in which one float32's last bit, changed at the first, makes up to 2 % within 20 evaluations.
    Gate("recorded: difference of losses in 20 evaluations", _worst("recorded", "loss_difference"), high=5e-2),
    Gate("memory that runs took over what they said, the farthest from 1", _memory, 0.9, 1.1),
    Gate("gatys: evaluations made in the time, of those asked for", _all_made, low=1),
    Gate("gatys: error of float32's early loss beside the CPU's", _error("gatys", "error_float32"), high=1e-2),
    Gate("gatys: error of the early loss beside the CPU's", _error("gatys", "error"), high=5e-2),
    Gate("pictures of a gallery of 16", _fact("gallery", "pictures"), 16, 16),
    Gate("the gallery's exit code", _fact("gallery", "code"), 0, 0),
    Gate("difference of two devices' loss from one's", _apart, high=1e-3),
    Gate("an evaluation at 512 px, over plain PyTorch's in float32", _best("evaluation", "ratio", size=512), high=0.15,
         is_aim=True),
    Gate("bfloat16's share of the measured peak at 1024 px", _of_peak, low=0.4, is_aim=True),
    Gate("milliseconds of an evaluation of painterly", _best("painterly", "milliseconds", size=512), high=2.5,
         is_aim=True),
    Gate("gatys: seconds of all evaluations, once warm", _warm_run, high=2, is_aim=True),
    Gate("gatys: time that it took over what it said", _time, 0.75, 1.25, is_aim=True),
)  # fmt: skip
