"""What a fit changes for its whole process: each case in a process of its own, compared before and after.

``python processstate.py content style folder`` prints, in JSON and by case, how the fit ended and what differs then.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import locale
import logging
import multiprocessing
import os
import random
import resource
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch
import numpy as np
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from PIL import Image

_PRECISIONS = {
    "all": torch.backends,
    "CUDA's products": torch.backends.cuda.matmul,
    "cuDNN's convolutions": torch.backends.cudnn.conv,
    "cuDNN's recurrences": torch.backends.cudnn.rnn,
    "oneDNN's products": torch.backends.mkldnn.matmul,
    "oneDNN's convolutions": torch.backends.mkldnn.conv,
}
_HOOKS = [(sys, "excepthook"), (sys, "unraisablehook"), (sys, "displayhook"), (threading, "excepthook")]


def _told(question: Callable[[], Any]) -> Any:
    """An answer, or what it was refused with: PyTorch refuses some once its newer settings are used."""
    try:
        return question()
    except RuntimeError as error:
        return str(error)[:60]


def _logger(name: str | None) -> list[str]:
    logger = logging.getLogger(name)
    return [repr(part) for part in (logger.level, logger.handlers, logger.filters, logger.propagate, logger.disabled)]


def heap() -> dict[str, bool]:
    """What glibc does with a large block and with memory at the heap's end: mapped, and handed back.

    Nothing where the library is another one. Its settings cannot be asked for.
    """

    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", *"456789")]

    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallinfo2.restype, library.malloc.restype = Info, ctypes.c_void_p
    except (OSError, AttributeError):
        return {}
    library.malloc.argtypes, library.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    library.malloc_trim(0)
    before = library.mallinfo2()
    block = library.malloc(256 << 20)
    mapped = library.mallinfo2().hblks > before.hblks
    library.free(block)
    blocks = (ctypes.c_void_p * 3000)()
    for index in range(len(blocks)):
        blocks[index] = library.malloc(100 << 10)  # 293 MiB together, in the heap in any case
    full = library.mallinfo2().arena
    for block in blocks:
        library.free(block)
    return {"mapped": mapped, "handed back": full - library.mallinfo2().arena > 128 << 20}


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    gc.collect()
    statm = Path("/proc/self/statm")
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def state() -> dict[str, Any]:
    """All that is compared, by name; each in text."""
    cudnn = torch.backends.cudnn
    mask = os.umask(0o22)
    os.umask(mask)
    found = {
        "environment": dict(sorted(os.environ.items())),
        "current folder": Path.cwd(),
        "import path": sys.path,
        "arguments": sys.argv,
        "torch's threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "precisions": {name: place.fp32_precision for name, place in _PRECISIONS.items()},
        "TF32": [_told(lambda: torch.backends.cuda.matmul.allow_tf32), _told(lambda: cudnn.allow_tf32)],
        "precision of products": _told(torch.get_float32_matmul_precision),
        "sums of bfloat16": torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        "sums of float16": torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
        "cuDNN": [cudnn.enabled, cudnn.benchmark, cudnn.deterministic],
        "oneDNN": [torch.backends.mkldnn.enabled, torch.backends.mkldnn.deterministic],
        "deterministic": [
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        ],
        "default type and device": [torch.get_default_dtype(), torch.get_default_device()],
        "autocast": {
            kind: [torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)] for kind in ("cpu", "cuda", "xpu")
        },
        "cache of autocast": torch.is_autocast_cache_enabled(),
        "gradients": [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()],
        "denormal numbers": bool(torch.tensor([1e-40]).mul(2).item()),
        "processes": [torch.distributed.is_initialized(), rank_zero_only.rank],
        "chance": [torch.get_rng_state().sum().item(), hash(random.getstate()), np.random.get_state()[1].sum()],
        "filters of warnings": warnings.filters,
        "warnings": [warnings.showwarning, warnings.formatwarning, warnings._showwarnmsg_impl],
        "loggers": {
            name: _logger(name) for name in (None, "lightning", "lightning.pytorch", "lightning.fabric", "torch")
        },
        "logging": [logging.root.manager.disable, logging.getLoggerClass(), logging.lastResort],
        "handlers of signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "hooks": {f"{place.__name__}.{name}": getattr(place, name) for place, name in _HOOKS},
        "streams": [sys.stdin, sys.stdout, sys.stderr],
        "faults": faulthandler.is_enabled(),
        "locale": locale.setlocale(locale.LC_ALL),
        "umask": mask,
        "limits": {n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT_")},
        "start of processes": [multiprocessing.get_start_method(), torch.multiprocessing.get_sharing_strategy()],
        "collector": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), sys.getrecursionlimit()],
        "sizes of pictures": Image.MAX_IMAGE_PIXELS,
        "numbers in text": [np.get_printoptions(), torch._tensor_str.PRINT_OPTS],
        "memory": heap(),
    }
    return {name: repr(value) for name, value in found.items()}


class Raise(lightning.pytorch.Callback):
    """Raises an error when a hook is called, or sends the process a signal.

    Args:
        hook: Name of the hook.
        what: The error or the signal.
        call: At which call.
    """

    def __init__(self, hook: str, what: BaseException | signal.Signals, call: int = 1) -> None:
        self.what, self.left = what, call
        setattr(self, hook, self._called)

    @property
    def state_key(self) -> str:
        """One of its own, as there may be several."""
        return f"Raise {id(self)}"

    def _called(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0 and isinstance(self.what, BaseException):
            raise self.what
        if self.left == 0:
            signal.raise_signal(self.what)


class Look(lightning.pytorch.Callback):
    """Notes what is set during a fit."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def on_train_batch_end(self, *_: Any) -> None:
        now = state()
        self.seen = {name: now[name] for name in ("memory", "precisions", "TF32")}


@dataclass
class Case:
    """A fit of four evaluations.

    Attributes:
        raises: What goes wrong, as the arguments of `Raise`.
        options: Of the trainer, by name; ``tf32`` only for the trainer that knows it.
        tile: Side of the tiles.
        first: What the program does before.
        continued: Whether the fit continues from a checkpoint.
    """

    raises: Sequence[tuple[Any, ...]] = ()
    options: dict[str, Any] = field(default_factory=dict)
    tile: Any = "auto"
    first: Callable[[], object] = lambda: None
    continued: bool = False
    look: Look = field(default_factory=Look)

    def fit(self, kind: str, content: str, style: str, folder: Path, *, continued: bool | None = None) -> None:
        """Make a picture from Python, by Lightning's Trainer or by ours, with all callbacks that there are."""
        if kind in {"the command", "stylize", "threads"}:
            {"the command": self._command, "stylize": self._stylize, "threads": self._threads}[kind](content, style)
            return
        from nst_lightning import StyleTrainer, StyleTransfer, StyleTransferData
        from nst_lightning.callbacks import Checkpoints, Export, Figure, Metrics, Progress, Signals, Snapshots, Watch
        from nst_lightning.features import CompactVGG19
        from nst_lightning.runs.checkpoint import WholeFiles

        callbacks = [Progress(), Metrics(), Watch(), Export(), Figure(), Snapshots(2), Signals(), self.look]
        model = StyleTransfer(evaluations=4, extractor=CompactVGG19("narrow"), tile=self.tile)
        options = {"accelerator": "cpu", "precision": "32-true", "max_epochs": -1, "logger": False, **self.options}
        callbacks.append(Checkpoints(every=2, finished=2))
        class_ = StyleTrainer
        if kind == "Trainer":
            class_ = lightning.pytorch.Trainer
            options.pop("tf32", None)
        trainer = class_(
            callbacks=[*callbacks, *(Raise(*raised) for raised in self.raises)],
            default_root_dir=folder,
            plugins=[WholeFiles()],
            **options,
        )
        checkpoint = folder / "checkpoints" / "000002.ckpt" if self.continued and continued is None else None
        trainer.fit(model, datamodule=StyleTransferData(content, style, size=96), ckpt_path=checkpoint)

    def _command(self, content: str, style: str) -> None:
        """The same from a program that calls the command."""
        from nst_lightning.cli import main as nst

        args = f"fit --data.content {content} --data.style {style} --data.size 96 --model.evaluations 4"
        args += f" --trainer.accelerator cpu --trainer.precision 32-true --model.tile {self.tile}"
        args += " --model.extractor CompactVGG19 --model.extractor.weights narrow"
        args += "".join(f" --trainer.{name} {value}" for name, value in self.options.items())
        code = nst(args.split())
        assert code == 0, f"exit code {code}"

    def _stylize(self, content: str, style: str) -> None:
        """The same by one call."""
        from nst_lightning import stylize

        def progress(_: object) -> None:
            for hook, error, _call in self.raises:
                if hook == "on_train_batch_end":
                    raise error

        options = {f"trainer.{name}": value for name, value in self.options.items()} | {"model.tile": self.tile}
        stylize(content, style, size=96, evaluations=4, precision="32-true", progress=progress, **options)

    def _threads(self, content: str, style: str) -> None:
        """The same from four threads at once, in one session."""
        from nst_lightning import Session

        session = Session()

        def work() -> bytes:
            return session.stylize(content, style, size=96, evaluations=4, precision="32-true").image.tobytes()

        with ThreadPoolExecutor(4) as pool:
            pictures = [future.result() for future in [pool.submit(work) for _ in range(4)]]
        assert len(set(pictures)) == 1

    def compared(self, *where: Any) -> dict[str, Any]:
        """How the fit ended, and what is not afterwards as it was."""
        if self.continued:
            self.fit(*where, continued=False)
            torch.manual_seed(5)
        self.first()
        before, end = state(), "finished"
        try:
            self.fit(*where)
        except BaseException as error:
            end = "".join(traceback.format_exception_only(error)).strip()
        after = state()
        changed = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
        return {"end": end, "changed": changed, "during": self.look.seen}


def _by_name() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "ieee"


_IN_THE_MIDDLE = ("on_train_batch_end", RuntimeError("no"), 3)
CASES: dict[str, Case] = {
    "a success": Case(),
    "TF32": Case(options={"tf32": True}),
    "tiles": Case(tile=64),
    "a refusal": Case(options={"gradient_clip_val": 1.0}),
    "an error in setup": Case([("setup", RuntimeError("no"))]),
    "an error at the start": Case([("on_train_start", RuntimeError("no"))]),
    "an error in the middle": Case([_IN_THE_MIDDLE]),
    "an error after an error": Case([_IN_THE_MIDDLE, ("on_exception", ValueError("once more"))]),
    "an error at the end": Case([("teardown", RuntimeError("no"))]),
    "Ctrl-C": Case([("on_train_batch_end", KeyboardInterrupt(), 3)]),
    "SIGTERM": Case([("on_train_batch_end", signal.SIGTERM, 3)]),
    "a run that goes on": Case(continued=True),
    "a program with a precision": Case(first=lambda: torch.set_float32_matmul_precision("medium")),
    "a program with a precision by name": Case(first=_by_name),
}
KINDS = {
    "Trainer": list(CASES),
    "StyleTrainer": list(CASES),
    "the command": ["a success", "TF32", "tiles", "a refusal", "a program with a precision"],
    "stylize": ["a success", "TF32", "tiles", "a refusal", "an error in the middle", "a program with a precision"],
    "threads": ["a success"],
}


def _in_a_process_of_its_own(work: Callable[[], Any], said: Path) -> Any:
    """What a function returns in a process that has done nothing but to load what it needs."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with said.open("w", encoding="utf-8") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        os.chdir(said.with_suffix(""))
        with os.fdopen(writing, "w") as out:
            json.dump(work(), out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"end": said.read_text(encoding="utf-8"), "changed": {}, "during": {}}


def main() -> None:
    """Print what became of all cases."""
    content, style, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve()
    before = state()
    import nst_lightning.callbacks
    import nst_lightning.cli.fit
    import nst_lightning.config.build
    import nst_lightning.session

    after = state()
    loaded = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
    found = {"import": {"end": nst_lightning.__file__, "changed": loaded, "memory": heap()}}
    for number, (kind, name) in enumerate((kind, name) for kind, names in KINDS.items() for name in names):
        where = folder / str(number)
        where.mkdir()
        work = partial(CASES[name].compared, kind, content, style, where)
        found[f"{name}, {kind}"] = _in_a_process_of_its_own(work, where.with_suffix(".said"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
