"""The stages of a run that goes on with another number of evaluations than it began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import Namespace

from nst_lightning.data.schedule import Stage, default_evaluations, evaluations_after_draft, make_schedule
from nst_lightning.errors import UserError
from nst_lightning.runs.counters import Position
from nst_lightning.runs.facts import NETWORK


def stages_of_resumed(
    asked: Namespace, stored: Mapping[str, Any], facts: Mapping[str, Any], position: Position
) -> list[dict[str, Any]]:
    """Settings of the stages of a run that goes on, as far as what is asked for does not say them itself.

    With another number of evaluations, stages before the present one stay as they were; that one and those to come
    share what is left. Without one, a run of a version whose stages by default were longer keeps them.

    Args:
        asked: The model's part of what is asked for, the run's own configuration left out.
        stored: The run's own configuration.
        facts: What its checkpoint says of it.
        position: Where it was when that was written.

    Returns:
        Nothing if its stages are what the configurations say.

    Raises:
        UserError: If so many evaluations leave none for a stage to come.
    """
    then, model = facts.get("evaluations", []), stored.get("model", {})
    if not then or not model:
        return []
    given = model.get("stages")
    if asked.stages is not None:
        # A preset that is named again brings its stages; only with another length something is left to say of them.
        if asked.evaluations is None or len(asked.stages) != len(then):
            return []
        given = [stage.as_dict() if isinstance(stage, Namespace) else dict(stage) for stage in asked.stages]
    if asked.evaluations is None:
        by_default = given is None and model.get("evaluations") is None
        counts = list(then) if by_default and list(then) not in _defaults(len(then)) else []
    elif len(then) > 1 or given:  # one that was given may have a network of its own
        counts = _of_length(asked.evaluations, then, position)
    else:
        counts = []
    settings = given or _default_settings(model.get("draft"), facts, len(counts))
    return [{**stage, "evaluations": count} for stage, count in zip(settings, counts, strict=False)]


def _of_length(evaluations: int, then: Sequence[int], position: Position) -> list[int]:
    """Evaluations of all stages of a run of another length."""
    stage, done, _ = position
    before, later = list(then[:stage]), list(then[stage + 1 :])
    left = evaluations - sum(before)
    rest = _shares(left, then[stage:])
    if later and (rest is None or rest[0] < done):  # more of the present stage is made than its share
        rest = _shares(left - done, later)
        if rest is None:
            made = sum(before) + done
            raise UserError(
                f"model.evaluations: must be at least {made + len(later)}, the {made} that are made and one for each "
                f"stage to come, got {evaluations}"
            )
        rest = [done, *rest]
    return [*before, *(rest or [1])]  # less than is made leaves nothing to do


def _shares(evaluations: int, then: Sequence[int]) -> list[int] | None:
    """What each stage makes of so many, by its share of then; None if they are too few."""
    if evaluations < len(then):
        return None
    return [stage.evaluations for stage in make_schedule(evaluations, [Stage(count) for count in then])]


def _defaults(count: int) -> list[list[int]]:
    """All that so many stages make by default: with a draft the last is the model's own, but one may be left out."""
    found = [default_evaluations(stages, nothing) for stages in {count, max(1, count - 1)} for nothing in (False, True)]
    return [counts if len(counts) == count else [*counts, evaluations_after_draft(counts[-1])] for counts in found]


def _default_settings(draft: Any, facts: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Scales and networks of so many stages by default."""
    files = facts.get("files", {})
    networks = [files.get(f"{NETWORK} of stage {index + 1}") for index in range(count)]
    if draft is None or not networks or networks[0] == networks[-1]:  # none, or it lacked a layer
        return [{"scale": 0.5**halvings} for halvings in reversed(range(count))]
    return [*({"scale": 0.5**halvings, "extractor": draft} for halvings in reversed(range(count - 1))), {"scale": 1.0}]
