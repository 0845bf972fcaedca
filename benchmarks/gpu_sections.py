"""The sections of `gpu_check.py`, in a process of its own: what is measured is written at once, and outlives a kill.

It says ``ready``. A line ``SECTION SECONDS`` on standard input runs a section; the answer is a line, ``done`` or why it
failed.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from beside import baseline_beside
from counting import counts
from memory import resident
from programs import (
    EXTRACTORS,
    Build,
    Step,
    graphs,
    our_step,
    pictures,
    precisions,
    product_step,
    synchronize,
    terms_of,
)

from nst_lightning import Session
from nst_lightning.cli.benchmark import environment as machine
from nst_lightning.files.atomic import replacing
from nst_lightning.hardware.accelerator import compute_dtype
from nst_lightning.images import write_image
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective

SCALES = ("full", "small", "tiny")


@dataclass
class Notes:
    """What a section is to do, and what it has found.

    Args:
        section: Its name.
        folder: Where its file lies.
        device: A kind of device.
        scale: full; small, for a CPU, in minutes; tiny, for tests, in seconds.
        seconds: That it has.
    """

    section: str
    folder: Path
    device: str
    scale: str
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    begin: float = field(default_factory=time.monotonic)

    def pick(self, *of_scales: Any) -> Any:
        """The value for this scale: of full, small, tiny."""
        return of_scales[SCALES.index(self.scale)]

    @property
    def extractor(self) -> str:
        """VGG-19, or where that would take a CPU minutes the compact encoder."""
        return self.pick("vgg19", "compact", "compact")  # type: ignore[no-any-return]

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (time.monotonic() - self.begin)

    def note(self, **facts: Any) -> None:
        """Add facts, and write."""
        self.facts |= facts
        self.write()

    def row(self, **facts: Any) -> None:
        """Add a measurement, and write."""
        self.rows.append(facts)
        self.write()

    def write(self, *, finished: bool = False) -> None:
        """All that is known, as JSON."""
        known = {"section": self.section, "device": self.device, "scale": self.scale, "finished": finished}
        known |= {"seconds": time.monotonic() - self.begin, "facts": self.facts, "rows": self.rows}
        with replacing(self.folder / f"{self.section}.json") as file:
            file.write((json.dumps(known, indent=1) + "\n").encode())


def environment(notes: Notes) -> None:
    """Versions, device and driver."""
    notes.note(**machine(), threads=torch.get_num_threads(), cuda=torch.version.cuda, hip=torch.version.hip)
    if notes.device == "cuda":
        of = torch.cuda.get_device_properties(0)
        notes.note(device_count=torch.cuda.device_count(), capability=[of.major, of.minor], bytes=of.total_memory)
        notes.note(processors=of.multi_processor_count, cudnn=torch.backends.cudnn.version())
        asked = "name,driver_version,power.limit,clocks.max.sm,clocks.max.mem"
        command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
        try:
            said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10).stdout
            notes.note(nvidia_smi=said.strip().split("\n"))
        except (OSError, subprocess.TimeoutExpired) as error:
            notes.note(nvidia_smi=str(error))


def correctness(notes: Notes) -> None:
    """Loss and gradient against those of a CPU in float64: relative errors, and the gradients' cosine."""
    size, tile = notes.pick((384, 128), (96, 64), (64, 64))
    for objective in ("default", "painterly"):
        expected, slope = _evaluated("cpu", "64-true", objective, size, None, notes.extractor)
        sides = (None,) if objective == "painterly" and notes.scale != "full" else (None, tile)
        for precision, side in itertools.product(precisions(notes.device), sides):
            loss, gradient = _evaluated(notes.device, precision, objective, size, side, notes.extractor)
            error = (gradient - slope).norm() / slope.norm()
            notes.row(
                objective=objective, precision=precision, tile=side, size=size, loss_error=abs(loss / expected - 1),
                gradient_error=float(error),
                cosine=float(torch.dot(gradient.flatten(), slope.flatten()) / gradient.norm() / slope.norm()),
            )  # fmt: skip


def _evaluated(
    device: str, precision: str, objective: str, size: int, tile: int | None, extractor: str
) -> tuple[float, torch.Tensor]:
    """Loss and gradient half way between the content and noise, on the CPU in float64."""
    dtype = torch.float64 if precision == "64-true" else torch.float32
    network = EXTRACTORS[extractor]().to(device)
    network.set_compute_dtype(compute_dtype(precision))
    evaluate = Evaluator(Objective(terms_of(objective)), network, tile)
    content, style = (picture.to(dtype) for picture in pictures(size, device))
    evaluate.prepare(content, [(style, 1.0)])
    noise = torch.rand(content.shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    image = (0.5 * content + 0.5 * noise).requires_grad_()
    loss = evaluate(image).loss
    loss.backward()
    return float(loss.detach()), image.grad.cpu().double()


def peak(notes: Notes) -> None:
    """Products of matrices, in the formats that the device has."""
    for dtype in ["float32", *(["bfloat16"] if "bf16-mixed" in precisions(notes.device) else [])]:
        step, operations = product_step(notes.device, dtype, notes.pick(None, None, 256))
        median, spread = _timed(step, lambda: None, notes.pick((20, 3), (5, 1), (2, 0)))
        notes.row(dtype=dtype, seconds=median, spread=spread, gigaflops=operations / median / 1e9)


def _timed(step: Callable[[], Any], wait: Callable[[], None], rounds: tuple[int, int]) -> tuple[float, float]:
    """Median of a step's seconds and half the distance of the quartiles, in so many rounds after so many to warm up."""
    seconds, (count, warm) = [], rounds
    for _ in range(count + warm):
        begin = time.perf_counter()
        step()
        wait()
        seconds.append(time.perf_counter() - begin)
    low, middle, high = statistics.quantiles(seconds[warm:], n=4)
    return middle, (high - low) / 2


def evaluation(notes: Notes) -> None:
    """Seconds of an evaluation, in turn with plain PyTorch in float32 on the same device; what it asks of it."""
    for size in notes.pick((512, 1024, 256, 2048), (128,), (64,)):
        with baseline_beside(size, notes.device) as plain:
            for precision in precisions(notes.device):
                _evaluation(notes, size, precision, plain)
                if notes.left < 0.2 * notes.seconds:
                    notes.note(cut_short_at=size)
                    return


def _counts(step: Step, device: str) -> dict[str, Any]:
    """What an evaluation counts; a CPU, which waits for nothing when it reads a value of its own, tells no reads."""
    return {**counts(step, device), **({"host_reads": None} if device == "cpu" else {})}


def _evaluation(notes: Notes, size: int, precision: str, plain: Callable[[], float]) -> None:
    try:
        step, _ = our_step(size, notes.device, precision, extractor=notes.extractor)
        step()
        known = _counts(step, notes.device)
        beside: list[float] = []
        ours: list[float] = []
        rounds = notes.pick((20, 3) if size <= 1024 else (8, 2), (3, 1), (2, 0))
        for _ in range(sum(rounds)):  # in turn, as the speed of a machine drifts
            beside.append(plain())
            ours.append(_timed(step, lambda: synchronize(notes.device), (2, 0))[0])
    except torch.OutOfMemoryError as error:
        notes.row(size=size, precision=precision, problem=str(error).split("\n")[0])
        return
    ours, beside = ours[rounds[1] :], beside[rounds[1] :]
    seconds, baseline = statistics.median(ours), statistics.median(beside)
    notes.row(
        size=size, extractor=notes.extractor, precision=precision, seconds=seconds, least=min(ours), most=max(ours),
        baseline_seconds=baseline, ratio=seconds / baseline, waits=_waits(step, notes.device), **known,
    )  # fmt: skip


def _waits(step: Callable[[], Any], device: str) -> int | None:
    """How often CUDA says that a step waits for it; None for other devices, which do not say."""
    if device != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def painterly(notes: Notes) -> None:
    """Milliseconds of an evaluation of the preset at its own size."""
    size = notes.pick(512, 128, 64)
    for precision in precisions(notes.device):
        step, _ = our_step(size, notes.device, precision, objective="painterly", extractor=notes.extractor)
        step()
        known = _counts(step, notes.device)
        median, spread = _timed(step, lambda: synchronize(notes.device), notes.pick((20, 3), (3, 0), (2, 0)))
        waits = _waits(step, notes.device)
        notes.row(
            size=size, extractor=notes.extractor, precision=precision, milliseconds=1000 * median, spread=1000 * spread,
            waits=waits, **known,
        )  # fmt: skip


def recorded(notes: Notes) -> None:
    """A step of kernels that are handed over as one (CUDA graphs), in turn with a plain one, and how losses differ."""
    from nst_lightning.hardware.recording import recorder_for  # noqa: PLC0415 - one section's

    if recorder_for(torch.device(notes.device), 1) is None:
        notes.note(skipped=f"nothing is recorded on {notes.device}")
        return
    precision = precisions(notes.device)[-1]
    for size, objective in itertools.product(notes.pick((512, 256, 1024), (128,), (64,)), ("default", "painterly")):
        if notes.left < 0.15 * notes.seconds:
            notes.note(cut_short_at=size)
            return
        build = partial(our_step, size, notes.device, precision, extractor=notes.extractor, objective=objective)
        plain, other = _under(partial(graphs, False), build), _under(partial(graphs, True), build)
        losses = [(float(plain()), float(other())) for _ in range(notes.pick(20, 6, 3))]
        differences = torch.tensor(losses, dtype=torch.float64).log().diff().abs()
        notes.row(
            objective=objective, size=size, precision=precision, **_in_turn(notes, plain, other),
            loss_difference=float(differences.max()), replays=_replays(other, notes.device),
        )  # fmt: skip


def _under(setting: Callable[[], AbstractContextManager[None]], build: Build) -> Step:
    """A step that is built, and made each time, under a setting of the process."""
    with setting():
        step, _ = build()

    def within() -> torch.Tensor | float:
        with setting():
            return step()

    return within


def _in_turn(notes: Notes, usual: Step, other: Step) -> dict[str, float]:
    """Milliseconds of two steps, which are made in turn, and their ratio with half the distance of its quartiles."""
    rounds, warm = notes.pick((20, 3), (3, 0), (2, 0))
    seconds = [
        [_timed(step, lambda: synchronize(notes.device), (2, 0))[0] for step in (usual, other)]
        for _ in range(rounds + warm)
    ][warm:]
    low, middle, high = statistics.quantiles([after / before for before, after in seconds], n=4)
    before, after = (1000 * statistics.median(column) for column in zip(*seconds, strict=True))
    return {"usual_milliseconds": before, "milliseconds": after, "ratio": middle, "spread": (high - low) / 2}


def _replays(step: Step, device: str) -> int | None:
    """Graphs that a step hands over to CUDA: none would mean that nothing was recorded."""
    if device != "cuda":
        return None
    with torch.profiler.profile() as found:
        step()
        synchronize(device)
    return sum(event.count for event in found.key_averages() if event.key == "cudaGraphLaunch")


def variants(notes: Notes) -> None:
    """Steps with what could be set otherwise, in turn with the usual one: whether it would be worth it.

    Of the two memory formats one is the network's own choice, and shows how far two equal steps are apart.
    """
    for precision, size in itertools.product(precisions(notes.device)[::-1], notes.pick((512, 1024), (128,), (64,))):
        build = partial(our_step, size, notes.device, precision, extractor=notes.extractor)
        others = {
            "cudnn.benchmark": (_searching, build),
            "channels last": (nullcontext, partial(build, order=torch.channels_last)),
            "channels first": (nullcontext, partial(build, order=torch.contiguous_format)),
        }
        usual = _under(nullcontext, build)
        for name, (setting, built) in others.items():
            if notes.left < 0.15 * notes.seconds:
                notes.note(cut_short_at=size)
                return
            compared = _in_turn(notes, usual, _under(setting, built))
            notes.row(variant=name, size=size, precision=precision, **compared)


@contextmanager
def _searching() -> Iterator[None]:
    """Let cuDNN try its algorithms, and take the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def memory(notes: Notes) -> None:
    """What a run says it will take, and what it took, whole and in tiles."""
    own = None if notes.device == "cpu" else torch.get_device_module(notes.device)
    for size, tile in notes.pick(
        ((1024, 512), (1024, None), (2048, 1024), (2048, None)), ((256, None),), ((64, None),)
    ):
        said = "null" if tile is None else str(tile)
        options = [*notes.pick([], ["--config=fast"], ["--config=fast"]), f"--data.size={size}",
                   "--data.content=demo:content", "--data.style=demo:style", f"--model.tile={said}",
                   "--model.stages=[{evaluations: 5}]", f"--trainer.accelerator={notes.device}",
                   "--output=null"]  # fmt: skip
        session = Session(keep=False)
        predicted = session.forecast(options, measured=False).memory
        if own is not None and hasattr(own, "reset_peak_memory_stats"):
            own.reset_peak_memory_stats()
        try:
            with tempfile.TemporaryDirectory() as folder:
                session.run([*options, f"--trainer.default_root_dir={folder}"])
        except (RuntimeError, ValueError) as error:
            notes.row(size=size, tile=tile, predicted=predicted, problem=str(error).split("\n")[0])
            continue
        if own is None:  # forecast counts what the process had before, and so does the peak
            notes.row(size=size, tile=tile, predicted=predicted, bytes=resident())
        elif hasattr(own, "max_memory_allocated"):
            notes.row(size=size, tile=tile, predicted=predicted, bytes=own.max_memory_allocated(),
                      reserved=own.max_memory_reserved())  # fmt: skip


def gatys(notes: Notes) -> None:
    """The released setting: 500 evaluations at short side 512, and losses after 60 against the CPU's in float32."""
    size, long, early = notes.pick((512, 500, 60), (96, 40, 20), (64, 6, 4))
    folder = notes.folder / "gatys"
    rows, plan = _fit(notes, folder / "long", "gatys", notes.device, long, size, "auto")
    warm = min(10, len(rows) // 2)
    seconds = [float(row["seconds"]) for row in rows]
    notes.note(size=size, evaluations=len(rows), asked=long, seconds=seconds[-1], loss=float(rows[-1]["loss"]))
    notes.note(said_seconds=plan["seconds"], said_bytes=plan["bytes"])
    notes.note(after_warm_up=seconds[-1] - seconds[warm - 1], warm_up=warm, at=early)
    notes.note(loss_early=float(rows[early - 1]["loss"]))
    exact, _ = _fit(notes, folder / "float32", "gatys", notes.device, early, size, "32-true")
    notes.note(loss_early_float32=float(exact[-1]["loss"]))
    reference = exact
    if notes.device != "cpu":
        reference, _ = _fit(notes, folder / "cpu", "gatys", "cpu", early, size, "32-true")
    last = len(reference)  # the clock may have ended it
    notes.note(
        cpu_evaluations=last,
        cpu_loss=float(reference[-1]["loss"]),
        error=float(rows[last - 1]["loss"]) / float(reference[-1]["loss"]) - 1,
        error_float32=float(exact[last - 1]["loss"]) / float(reference[-1]["loss"]) - 1,
    )


def _fit(
    notes: Notes, folder: Path, preset: str, device: str, count: int, size: int, precision: str, *more: str
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Rows of metrics.csv of a run in a process of its own, which ends with the section's time, and its plan."""
    limit = max(5, int(notes.left * (0.9 if device == "cpu" else 0.8)))
    command = [
        *(sys.executable, "-m", "nst_lightning", "fit", "--config", preset, "--data.content", "demo:content"),
        *("--data.style", "demo:style", "--data.size", str(size), "--model.evaluations", str(count)),
        *("--trainer.accelerator", device, "--trainer.precision", precision, "--snapshot_every", "0"),
        *("--trainer.max_time", f"00:00:{limit // 60:02d}:{limit % 60:02d}", "--output", str(folder / "picture.png")),
        *("--trainer.default_root_dir", str(folder), "--log", "json", *more),
    ]
    folder.mkdir(parents=True)
    said = folder / "said.txt"
    with said.open("w", encoding="utf-8") as log:
        subprocess.run(command, check=True, timeout=max(10, notes.left), stderr=log)
    events = [json.loads(line) for line in said.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    plan = next(event for event in events if event["event"] == "plan")
    (path,) = folder.glob("*/metrics.csv")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)), plan


def gallery(notes: Notes) -> None:
    """Four contents in four styles, by one session."""
    size, evaluations = notes.pick((512, 180), (64, 3), (64, 2))
    place = notes.folder / "gallery"
    content, style = pictures(2 * size, "cpu")
    for name, picture in (("contents", content), ("styles", style)):
        (place / name).mkdir(parents=True)
        height, width = (side // 2 for side in picture.shape[-2:])
        for index, (top, left) in enumerate(itertools.product((0, height), (0, width))):
            write_image(place / name / f"{index}.png", picture[..., top : top + height, left : left + width])
    command = [sys.executable, "-m", "nst_lightning", "gallery", str(place / "contents"), "--styles",
               str(place / "styles"), "-o", str(place / "out"), "--size", str(size), "--model.evaluations",
               str(evaluations), "--trainer.accelerator", notes.device]  # fmt: skip
    begin = time.perf_counter()
    code = subprocess.run(command, check=False, timeout=notes.left, stdout=subprocess.DEVNULL).returncode
    seconds, made = time.perf_counter() - begin, len(list((place / "out").glob("*_*.png")))
    hourly = 3600 * made / seconds
    notes.note(size=size, evaluations=evaluations, code=code, pictures=made, seconds=seconds, images_per_hour=hourly)


def processes(notes: Notes) -> None:
    """A picture whose tiles two devices share, against the same by one; NCCL connects them where they are CUDA's."""
    there = 2 if notes.device == "cpu" else torch.accelerator.device_count()
    if there < 2:
        notes.note(skipped=f"needs two devices, has {there}")
        return
    preset, size, tile, count = notes.pick(("gatys", 2048, 512, 20), ("fast", 128, 64, 6), ("fast", 96, 64, 4))
    for number in (1, 2):
        more = ["--trainer.devices", str(number), "--model.tile", str(tile)]
        folder = notes.folder / "processes" / str(number)
        rows, _ = _fit(notes, folder, preset, notes.device, count, size, "32-true", *more)
        seconds = float(rows[-1]["seconds"]) - float(rows[0]["seconds"])
        notes.row(processes=number, size=size, tile=tile, seconds=seconds, loss=float(rows[-1]["loss"]))


def profile(notes: Notes) -> None:
    """What an evaluation spends its time on: kernels, or operators on a CPU; and the share of it that they fill."""
    from torch.profiler import ProfilerActivity  # noqa: PLC0415 - one section's

    activities = [ProfilerActivity.CPU]
    if notes.device != "cpu" and hasattr(ProfilerActivity, notes.device.upper()):
        activities.append(getattr(ProfilerActivity, notes.device.upper()))
    for objective in ("default", "painterly"):
        size, precision = notes.pick(512, 128, 64), precisions(notes.device)[-1]
        step, _ = our_step(size, notes.device, precision, objective=objective, extractor=notes.extractor)
        for _ in range(3):
            step()
        synchronize(notes.device)
        seconds, _ = _timed(step, lambda: synchronize(notes.device), notes.pick((10, 0), (3, 0), (2, 0)))
        with torch.profiler.profile(activities=activities) as found:
            step()
            synchronize(notes.device)
        work = work_of(found.key_averages(), on_host=len(activities) == 1)
        total = sum(each["us"] for each in work)
        # Without the profiler, which keeps the host busy; on MPS it sees no more than the host.
        computing = total / 1e6 / seconds if notes.device == "cpu" or len(activities) > 1 else None
        notes.note(**{f"{objective}_milliseconds": 1000 * seconds, f"{objective}_computing": computing})
        for each in work[:15]:
            notes.row(objective=objective, **each, share=each["us"] / max(total, 1e-9))


def work_of(events: Iterable[Any], *, on_host: bool) -> list[dict[str, Any]]:
    """Name, calls and microseconds of what a profiler saw at work, the longest first.

    Args:
        events: Its averages.
        on_host: Operators of the host; else kernels alone, as the time of an operator is that of its kernels once more.
    """
    took = "self_cpu_time_total" if on_host else "self_device_time_total"
    host = torch.autograd.DeviceType.CPU
    seen = [event for event in events if on_host or (event.device_type != host and not event.is_user_annotation)]
    found = [{"name": event.key, "calls": event.count, "us": getattr(event, took)} for event in seen]
    return sorted(found, key=lambda each: -each["us"])


SECTIONS: dict[str, Callable[[Notes], None]] = {
    section.__name__: section
    for section in (
        environment, correctness, peak, evaluation, painterly, recorded, memory, gatys, variants, gallery, processes,
        profile,
    )
}  # fmt: skip


def main() -> None:
    """Run the sections that lines on standard input name; arguments are folder, device and scale."""
    folder, device, scale = sys.argv[1:4]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what sections and their processes print goes to the log
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name, seconds = line.split()
        notes = Notes(name, Path(folder), device, scale, float(seconds))
        notes.write()
        try:
            SECTIONS[name](notes)
        except Exception as error:
            traceback.print_exc()
            said = " ".join(str(error).split())[:200]
            print(f"failed ({type(error).__name__}: {said})", file=answers, flush=True)
        else:
            notes.write(finished=True)
            print("done", file=answers, flush=True)


if __name__ == "__main__":
    main()
