"""All that a person with a GPU can contribute, in one command of at most ten minutes.

    python benchmarks/gpu_check.py                       # on the GPU; also on cuda of AMD, mps and xpu
    python benchmarks/gpu_check.py --device cpu --small  # the same steps, small, in less than three minutes

Each section has a time of its own, and writes what it measures at once into the output folder. They run in another
process: one that fails or runs out of time is listed, and the others go on in a new one. At the end a table, gates and
aims (`gpu_gates.py`) are printed, and written to `report.json` and `report.txt`. All figures in them were measured in
this run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gpu_gates import Found, judge, with_share

from nst_lightning.hardware.accelerator import available
from nst_lightning.process.waiting import wait_briefly

# Seconds of ten minutes; later sections get what earlier ones leave. What matters most comes early.
BUDGETS = {"environment": 15, "correctness": 50, "peak": 20, "evaluation": 115, "painterly": 30, "recorded": 45,
           "memory": 50, "gatys": 115, "variants": 40, "gallery": 50, "processes": 40, "profile": 30}  # fmt: skip
STARTING = 120  # seconds at most until PyTorch is loaded
ALONE = {"memory"}  # sections whose process has done nothing before


def main() -> int:
    """Run the sections.

    Returns:
        0 if no section failed and no gate that was measured does; an aim that is missed is no failure.
    """
    options = _parse()
    scale = "tiny" if options.tiny else "small" if options.small else "full"
    stamp = f"{datetime.now(timezone.utc):%Y-%m-%d_%H%M%S}"
    folder = Path(
        options.output or Path(__file__).parent / "results" / f"gpu_check_{stamp}_{options.device}"
    ).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    found: Found = {}
    worker = Worker(folder, options.device, scale)
    try:
        for name, share in shares(options.sections.split(",")):
            found[name] = worker.run(name, (end - time.monotonic()) * share)
            print(f"{name}: {found[name]['state']}, {found[name]['took']:.0f} s", flush=True)
    finally:
        worker.end()
    judged = judge(found, aims=scale == "full" and options.device != "cpu")
    text = "\n".join([*describe(found), "", *map(str, judged)])
    report = {"date": stamp, "device": options.device, "scale": scale, "sections": found}
    report["gates"] = {
        gate.words: {"state": state, "figure": figure, "bounds": gate.bounds} for gate, state, figure in judged
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / "report.txt").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\n{folder}")
    failed = any(one.state == "FAILED" for one in judged) or any(one["state"] != "done" for one in found.values())
    return 1 if failed else 0


def shares(sections: list[str]) -> Iterator[tuple[str, float]]:
    """Each section with its share of the time that is left, so that what one leaves goes to those after it."""
    for index, name in enumerate(sections):
        yield name, BUDGETS[name] / sum(BUDGETS[later] for later in sections[index:])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=available()[0], help="cpu, cuda, mps or xpu (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="for all sections (default: 10, with --small 3)")
    parser.add_argument("--sections", default=",".join(BUDGETS), help="comma-separated (default: all)")
    parser.add_argument("--output", help="folder (default: benchmarks/results/gpu_check_DATE_DEVICE)")
    parser.add_argument("--small", action="store_true", help="small sizes, for a CPU")
    parser.add_argument("--tiny", action="store_true", help="smaller still, to test this program")
    options = parser.parse_args()
    if options.device not in available():
        parser.error(f"--device: must be of {', '.join(available())} on this machine, got {options.device}")
    unknown = [name for name in options.sections.split(",") if name not in BUDGETS]
    if unknown:
        parser.error(f"--sections: must be of {', '.join(BUDGETS)}, got {unknown[0]}")
    options.minutes = options.minutes or (3 if options.small or options.tiny else 10)
    return options


class Worker:
    """The process in which sections run; a new one after each that did not end well.

    Args:
        folder: Where sections write; `log.txt` has what they print.
        device: A kind of device.
        scale: full, small or tiny.
    """

    def __init__(self, folder: Path, device: str, scale: str) -> None:
        self._folder, self._arguments = folder, [str(folder), device, scale]
        self._process: subprocess.Popen[str] | None = None

    def run(self, name: str, seconds: float) -> dict[str, Any]:
        """Run a section for so long at most.

        Returns:
            What it wrote, with ``took`` and its ``state``: done, out of time, or failed with a reason.
        """
        begin, file = time.monotonic(), self._folder / f"{name}.json"
        file.unlink(missing_ok=True)
        state = "out of time before it began"
        if seconds >= 1:
            if name in ALONE:
                self.end()
            try:
                state = self._ask(f"{name} {seconds}", seconds)
            finally:
                if state != "done":
                    self.end()
        known: dict[str, Any] = {"rows": [], "facts": {}}
        with contextlib.suppress(OSError, json.JSONDecodeError):
            known |= json.loads(file.read_text(encoding="utf-8"))
        return known | {"state": state, "took": time.monotonic() - begin}

    def _ask(self, line: str, seconds: float) -> str:
        """Let it run a section; that it has to start first is not the section's time."""
        if self._process is None:
            self._process = self._begin()
            started = _next_line(self._process, STARTING)
            if started != "ready":
                return f"failed (it did not start: {started or self._process.poll()})"
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(line + "\n")
            stdin.flush()
        except OSError as error:
            return f"failed ({error})"
        answer = _next_line(self._process, seconds)
        return answer or f"failed (its process ended, {self._process.wait(5)})"

    def _begin(self) -> subprocess.Popen[str]:
        script = str(Path(__file__).with_name("gpu_sections.py"))
        environment = os.environ | {"PYTHONWARNINGS": "ignore"}
        wait_briefly(environment)  # as `nst fit` does: beside other programs, threads that wait busily take the cores
        with (self._folder / "log.txt").open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, script, *self._arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True, env=environment, start_new_session=True,
            )  # fmt: skip

    def end(self) -> None:
        """Kill it, and the processes that it has started: its session is its own."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _next_line(process: subprocess.Popen[str], seconds: float) -> str:
    """What a process says next, nothing if it has ended, and ``out of time`` if it says nothing for so long."""
    stdout, lines = process.stdout, queue.Queue[str]()
    assert stdout is not None
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    try:
        return lines.get(timeout=seconds).strip()
    except queue.Empty:
        return "out of time"


def describe(found: Found) -> list[str]:
    """All sections, one after the other: state, facts, and rows in columns."""
    lines = []
    for name, known in found.items():
        lines += ["", f"{name} ({known['state']}, {known['took']:.0f} s)"]
        lines += [f"  {key}: {_said(value)}" for key, value in known["facts"].items()]
        rows = [with_share(row, found) for row in known["rows"]]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        cells = [columns, *([_said(row.get(column, "")) for column in columns] for row in rows)] if rows else []
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
    return lines[1:]


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
