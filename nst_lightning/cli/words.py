"""What may be typed after each subcommand, for the completion of a shell.

Words alone: the true parsers of ``nst fit`` and others need torch, which takes seconds. Tests compare the two.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import NamedTuple

from nst_lightning.cli.judge import NAMES as JUDGES
from nst_lightning.config.habits import OURS
from nst_lightning.config.presets import preset_names

SHELLS = ("bash", "zsh", "fish")
DEVICES = ("cpu", "cuda", "mps", "xpu")


class Value(NamedTuple):
    """What may follow an option, or stand in the place of an argument."""

    words: tuple[str, ...] = ()  # are offered
    paths: str = ""  # ``files`` or ``folders`` are offered, too
    many: bool = False  # whether there may be several


FLAG = None  # nothing follows
ANY = Value()  # something follows that cannot be offered, such as a number
FILE, FILES = Value(paths="files"), Value(paths="files", many=True)
FOLDER = Value(paths="folders")
SWITCH = Value(("true", "false"))

# What follows options of `nst fit`: files, if nothing is said here.
_ANY = """
    seed_everything bits quality snapshot_every checkpoint_every checkpoint_seconds checkpoint_keep checkpoint_finished
    data.style_size data.seed data.aspect data.content_floor data.regions model.evaluations model.strength
    model.likeness model.memory
    model.optimizer.lr model.optimizer.history_size model.optimizer.spectral_exponent trainer.devices trainer.num_nodes
    trainer.max_steps trainer.max_epochs trainer.max_time
"""
_SWITCHES = """
    keep_location data.style_follows trainer.deterministic trainer.enable_progress_bar trainer.enable_checkpointing
"""
FIT: dict[str, Value] = {
    **dict.fromkeys(_ANY.split(), ANY),
    **dict.fromkeys(_SWITCHES.split(), SWITCH),
    "color_space": Value(("srgb", "display-p3", "adobe-rgb", "content")),
    "fallback": FOLDER,
    "log": Value(("auto", "bar", "lines", "json", "none")),
    "ckpt_path": Value(("last",), "files"),
    "data.size": Value(("content",)),
    "data.side": Value(("long", "short")),
    "data.content_mask": Value(("faces",), "files"),
    "data.init": Value(("content", "recolored", "white", "grey", "noise"), "files"),
    "data.resample": Value(("bicubic", "bilinear")),
    "data.color": Value(("style", "luminance", "match", "histogram", "recolor")),
    "model.extractor": Value(("VGG19", "CompactVGG19")),
    "model.draft": Value(("VGG19", "CompactVGG19")),
    "model.extractor.pooling": Value(("max", "average", "l2")),
    "model.extractor.padding": Value(("zeros", "replicate")),
    "model.extractor.convolution": Value(("auto", "direct", "winograd")),
    "model.extractor.units": Value(("stored", "normalised")),
    "model.optimizer": Value(("LBFGS", "torch.optim.Adam")),
    "model.optimizer.history_dtype": Value(("float32", "bfloat16")),
    "model.tile": Value(("auto",)),
    "trainer.accelerator": Value(("auto", *DEVICES)),
    "trainer.precision": Value(("auto", "32-true", "bf16-mixed", "64-true")),
    "trainer.profiler": Value(("simple", "advanced")),
    "trainer.default_root_dir": FOLDER,
}


def _presets(*, files: bool = True) -> Value:
    return Value(tuple(preset_names()), "files" if files else "")


def _fit() -> dict[str, Value | None]:
    """The options of ``nst fit``, without those of Lightning that hardly anybody needs."""
    names = [prefix + name for prefix, names in OURS.items() for name in names.split()]
    options: dict[str, Value | None] = {f"--{name}": FIT.get(name, FILE) for name in names if name != "config"}
    return {"-c --config": _presets(), **options, "--print_config": FLAG}


def _short(parser: argparse.ArgumentParser) -> dict[str, Value | None]:
    """Short words, from a parser that needs no torch, and options of ``nst fit``, which may follow them."""
    options: dict[str, Value | None] = {}
    for action in parser._actions:
        # Of --keep-colors and --keep_colors the first is enough.
        spellings = {name.replace("_", "-"): name for name in reversed(action.option_strings)}
        typed = " ".join(reversed(spellings.values())) or action.dest
        value = SHORT.get(typed, ANY if action.type in {int, float} else FILE)
        options[typed] = FLAG if action.nargs == 0 else value._replace(many=action.nargs in {"*", "+"})
    taken = {name for typed in options for name in typed.split()}
    return {**options, **{typed: value for typed, value in _fit().items() if taken.isdisjoint(typed.split())}}


def _score() -> dict[str, Value | None]:
    return {
        "--student": FILE,
        "--content": FILES,
        "--style": FILES,
        "--photos": FOLDER,
        "--art": FOLDER,
        "--count": ANY,
        "--size": ANY._replace(many=True),
        "--evaluations": ANY,
        "--output": FOLDER,
    }


def _judge() -> dict[str, Value | None]:
    return {
        "CONTENT": FILE,
        "STYLE": FILE,
        "RESULT": FILES,
        "--judges": Value(JUDGES),
        "--device": Value(DEVICES),
        "--json": FLAG,
    }


def _benchmark() -> dict[str, Value | None]:
    return {
        "--suites": Value(("peak", "evaluation", "optimizer", "overhead", "memory", "target", "tiling", "presets")),
        "--accelerators": Value(("auto", *DEVICES)),
        "--precisions": Value(("auto", "32-true", "bf16-mixed")),
        "--sizes": ANY,
        "--presets": ANY,
        "--rounds": ANY,
        "--output": FOLDER,
        "--compare": FILES,
    }


def _runs() -> dict[str, Value | None]:
    run = Value(("clean",), "folders", many=True)
    return {"RUN": run, "--root": FOLDER, "--json": FLAG, "--older_than": ANY, "--yes": FLAG}


def _studio() -> dict[str, Value | None]:
    return {
        "--host": Value(("127.0.0.1", "0.0.0.0")),
        "--port": ANY,
        "--token": ANY,
        "--folder": FOLDER,
        "--headless": FLAG,
        "--open": FLAG,
        "--device": Value(DEVICES, many=True),
        "--max_megabytes": ANY,
        "--max_megapixels": ANY,
        "--keep_hours": ANY,
        "--checkpoint_seconds": ANY,
    }


# What follows short words: files, if nothing is said here, or anything, if it is a number.
SHORT: dict[str, Value] = {
    "--preset": _presets(),
    "--size": Value(("content",)),
    "--device": Value(DEVICES),
    "--precision": FIT["trainer.precision"],
    "--engine": Value(("local", "ray")),
    "--address": Value(("auto",)),
}

# Subcommand -> its options as they are typed, and its arguments, whose names have no dash.
TABLE: dict[str, Callable[[], Mapping[str, Value | None]]] = {
    "fit": _fit,
    "presets": lambda: {"NAME": _presets(files=False)._replace(many=True), "--json": FLAG},
    "info": lambda: {"--json": FLAG},
    "runs": _runs,
    "studio": _studio,
    "distill": lambda: {"-c --config": FILE, "--ckpt_path": FILE, "--print_config": FLAG},
    "judge": _judge,
    "score": _score,
    "benchmark": _benchmark,
    "completion": lambda: {"SHELL": Value(SHELLS)},
}


def words_of(subcommand: str, module: str) -> Mapping[str, Value | None]:
    """What may be typed after a subcommand that is run by a module; one that is not in the table has a parser there."""
    return TABLE[subcommand]() if subcommand in TABLE else _short(import_module(module).parser())
