"""Continuing a run: from the newest checkpoint or a given one, in its folder and with its configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import Namespace

from nst_lightning.config.lengthening import stages_of_resumed
from nst_lightning.config.parser import expand_presets, mentions
from nst_lightning.console import log
from nst_lightning.data.module import StyleTransferData
from nst_lightning.demo import locate
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import UserError
from nst_lightning.files.paths import expand, from_its_folder
from nst_lightning.runs.checkpoint import ENDED, FACTS, FOLDER, SETTINGS, read_checkpoint
from nst_lightning.runs.counters import written_at
from nst_lightning.runs.ending import evaluations_of_finished, is_written
from nst_lightning.runs.facts import check_files
from nst_lightning.runs.finding import Pictures, find_last, find_requeued, was_requeued
from nst_lightning.runs.folder import CONFIGURATION
from nst_lightning.runs.limits import NothingLeftError, check_room, used_up

_NOT_GIVEN = "(not given)"
_OPTIMIZER = "model.optimizer.class_path"
_NETWORK = re.compile(r"model\.((stages\.\d+\.)?extractor|draft)\b")
# Where results go and what is read besides is not what a run is.
_RESULTS = ("output", "fallback", "trainer.default_root_dir", "snapshot_every", "timelapse", "preview", "report")
# What losses are of, besides terms, strength and likeness, which the model itself compares.
_COMPARED = re.compile(
    r"model\.((stages\.\d+\.)?extractor|draft)\b"
    r"|data\.(regions|content_mask|content_floor|color|style_size|style_follows|resample)$"
    r"|data\.style\.(\d+\.)?(?!path|\d)"
)
_INCIDENTAL = ("ckpt_path", "checkpoint_", "log", *_RESULTS)


class Resumed(NamedTuple):
    """What is to be continued."""

    path: Path  # the checkpoint
    folder: Path | None  # the run's folder, or None if the checkpoint does not lie in one
    configuration: dict[str, Any]  # the run's own configuration, flat, by dotted key
    ended: bool  # whether a callback had ended the run there, and what it leaves is yet to be written


def resume(args: Sequence[str], parse: Callable[[list[str]], Namespace]) -> tuple[list[str], Resumed | None]:
    """Put a resumed run's own configuration before the arguments, which win over it.

    Whether a run is to be continued, where it lies and of which pictures it is may be said by the arguments themselves
    or by a configuration that they name, which `parse` makes of a command line without building anything.

    Returns:
        The arguments to parse, and what is continued, if anything is.

    Raises:
        UserError: If there is no such checkpoint, or it is damaged.
    """
    anew = expand_presets(args)
    if not was_requeued() and not mentions(anew, "ckpt_path"):
        return anew, None
    args = expand_presets(args, goes_on=True)
    # What has to be given is in the run's own configuration; it may still be missing here.
    asked = parse([f"--data.content={_NOT_GIVEN}", f"--data.style={_NOT_GIVEN}", *args])
    path = _checkpoint(asked)
    if path is None:
        return anew, None
    content = read_checkpoint(path, lazily=True)
    facts = content.get(FACTS, {})
    folder = next((f for f in (path.parent.parent, path.parent) if (f / CONFIGURATION).is_file()), None)
    text = str(content.get(SETTINGS, ""))
    stored = from_its_folder(yaml.safe_load(text), outputs=True) if text else {}
    configuration = dict(flatten(stored)) if stored else {}
    own = ["--config", yaml.safe_dump(stored, sort_keys=False, allow_unicode=True)] if stored else []
    if "precision" in facts:  # what auto chose then
        own.append(f"--trainer.precision={facts['precision']}")
    # A limit that a run has reached is lifted when all is written that the run leaves; else that comes first.
    written = folder is None or is_written(folder, _output(configuration))
    if written and folder is not None and path.parent == folder and not asked.ckpt_path:
        # The checkpoint of the requeue is the last one where the run was asked to write none.
        made = evaluations_of_finished(folder)
        if made is not None and made >= (asked.model.evaluations or 0):
            raise NothingLeftError(f"ckpt_path: '{folder}' has {made} evaluations, so nothing is left to do; give more")
    if written:
        count, made = asked.model.evaluations, content["global_step"]
        output = {"output": asked.output or configuration.get("output")}
        if count is not None and count <= made and is_written(folder, _output(output)):
            raise NothingLeftError.of(path, made, count)
        for name, value in used_up(configuration, content, facts.get("evaluations", [])).items():
            own.append(f"--{name}={'null' if value is None else value}")
    ended = bool(content.get(ENDED)) and not written
    stages = stages_of_resumed(asked.model, stored, facts, written_at(content))
    words = [f"--model.stages={json.dumps(stages)}", "--model.evaluations=null"] if stages else []
    configuration = {**_drafts(stored, stages), **configuration}
    return [*own, *args, *words, f"--ckpt_path={path}"], Resumed(path, folder, configuration, ended)


def _drafts(stored: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Networks of stages that had them by default, flat, as a configuration says them that has the stages' settings."""
    if not stored or stored["model"].get("stages"):
        return {}
    return {key: value for key, value in flatten({"model": {"stages": stages}}) if ".extractor" in key}


def _checkpoint(asked: Namespace) -> Path | None:
    """The file that a configuration asks for, if it asks for one."""
    root = expand(asked.trainer.default_root_dir, "trainer.default_root_dir")
    pictures = _pictures(asked.data)
    if not asked.ckpt_path:
        return find_requeued(root, pictures)
    if asked.ckpt_path == "last":
        return find_last(root, pictures)
    path = expand(asked.ckpt_path, "ckpt_path")
    if not path.is_file():
        raise UserError(f"ckpt_path: must be a file or last, got '{path}'; see the run folder's {FOLDER}")
    return path


def _pictures(asked: Namespace) -> Pictures:
    """The pictures of which a run is to be continued, as far as a configuration names them."""
    content = [] if asked.content in {None, _NOT_GIVEN} else [str(asked.content)]
    styles = asked.style if isinstance(asked.style, list) else [asked.style]
    paths = [str(item if isinstance(item, (str, Path)) else item["path"]) for item in styles]
    paths = [path for path in paths if path != _NOT_GIVEN]
    first, others = ([str(locate(path)) for path in given] for given in (content, paths))
    return Pictures(None if asked.content == _NOT_GIVEN else first, others or None, ", ".join([*content, *paths]))


def _output(configuration: Mapping[str, Any]) -> Path | None:
    """Where a run's picture is to be besides its folder."""
    return expand(configuration["output"], "output") if configuration.get("output") else None


def check_resumed(resumed: Resumed, now: Mapping[str, Any], model: StyleTransfer, data: StyleTransferData) -> bool:
    """Find out before the run whether it, with its flat configuration of now, can continue from a checkpoint.

    Returns:
        Whether all evaluations are made, and what a run leaves at its end is yet to be written.

    Raises:
        UserError: If it belongs to another optimiser, picture or size, or has nothing left to do.
    """
    path = resumed.path
    content = read_checkpoint(path, lazily=True)
    saved, ours = set(content["optimizer_states"][0]["param_groups"][0]), {"params", *model.parameter_groups()[0]}
    then = resumed.configuration.get(_OPTIMIZER)  # which a program's checkpoint does not say
    if saved - ours or (saved != ours and then not in {None, now.get(_OPTIMIZER)}):
        raise UserError(f"ckpt_path: '{path}' was made with another optimiser; give the same model.optimizer as then")
    before, after = map(_networks, (resumed.configuration, now))
    check_files(path, content.get(FACTS, {}), model.facts(data), same_network=before == after)
    stage = min(written_at(content).stage, len(model.stages) - 1)
    height, width = content["state_dict"]["image"].shape[-2:]
    expected = data.stage_size(model.stages[stage].scale)
    if (height, width) != expected:
        raise UserError(
            f"ckpt_path: '{path}' holds an image of {width}x{height} px, got {expected[1]}x{expected[0]} px for stage "
            f"{stage + 1}; give the same data.size and model.stages, or start from its picture with data.init"
        )
    try:
        check_room(path, now, content, [stage.evaluations for stage in model.stages])
    except UserError:
        if is_written(resumed.folder, _output(now)):
            raise
        return True
    return resumed.ended


def _networks(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What a flat configuration says of the networks of all stages."""
    return {key: value for key, value in configuration.items() if _NETWORK.match(key) and value is not None}


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as the checkpoint's run had it, as ``key: then -> now``."""
    keys = [key for key in dict.fromkeys([*before, *now]) if not key.startswith(_INCIDENTAL)]
    return [f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]


def compares_anew(resumed: Resumed, now: Mapping[str, Any]) -> bool:
    """Whether losses of before are of other networks, regions, masks or colours; files count by their names.

    What a file of an older version does not say was not done then: no regions are as none of them.
    """
    then = resumed.configuration  # nothing, if a program wrote the checkpoint
    keys = [key for key in {**then, **now} if _COMPARED.match(key)] if then else []
    return any((_named(then.get(key)) or None) != (_named(now.get(key)) or None) for key in keys)


def _named(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) else value


def say_resumed(resumed: Resumed, now: dict[str, Any], *, at_end: bool) -> None:
    """Say from where a run goes on, maybe only to write what it leaves at its end, and what is not as it was."""
    then = resumed.configuration  # nothing, if a program wrote the checkpoint
    changed = differences(then, {**now, "trainer.precision": then.get("trainer.precision", "auto")}) if then else []
    also = f"; not as then: {', '.join(changed)}" if changed else ""
    what = "the run is at its end; writing what is missing," if at_end else "continuing"
    log.say("resumed", f"{what} from {resumed.path}{also}", path=str(resumed.path))


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and lists with dotted keys."""
    if isinstance(tree, (dict, list)) and tree:
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
