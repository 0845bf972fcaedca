"""Several processes on one picture, started and watched by torch's elastic agent, and again if one of them dies.

This process does none of the work. It takes a third of a second to import, so only where several are asked for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, LogsDest, Std
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from nst_lightning.errors import UserError
from nst_lightning.process.interruption import hand_on, signals_as_before
from nst_lightning.process.launched import VARIABLE, Report, Start, all_begun, last_words, reports
from nst_lightning.process.ownership import owns_process

_LOOK = 0.1  # seconds between two looks at the processes
_PATIENCE = 10.0  # seconds that survivors on several machines have to write what there is
_MEETING = 1800  # seconds that machines wait for each other
_ANY_NUMBER = 1_000_000  # of restarts: whoever plans them counts
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # which Windows lacks
_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_LISTENS = "TORCHELASTIC_SIGNALS_TO_HANDLE"


class Failure(NamedTuple):
    """A process that has ended otherwise than it should."""

    process: int  # counted from 1
    processes: int  # how many there were
    code: int  # its exit code, or the negative number of a signal
    report: Report | None = None  # what it had to say
    said: str = ""  # the last line of a library in it

    @property
    def end(self) -> str:
        """What became of it, in words."""
        if self.report is not None and self.report.error is not None:
            error = self.report.error
            said = " ".join(str(error).split())[:200]
            end = f"ended by {type(error).__name__}: {said}" if said else f"ended by {type(error).__name__}"
        elif self.code < 0:
            end = f"ended by signal {-self.code} ({signal.Signals(-self.code).name})"
        else:
            end = f"ended with code {self.code}"
        if self.report is None and self.said and self.code != -_KILL:
            end += f": {self.said}"
        return end

    def __str__(self) -> str:
        """Which process it was, and what became of it."""
        return f"process {self.process} of {self.processes} {self.end}"


Plan = Callable[[Failure | None], Start | None]
"""Says where processes begin: None at first, then what has failed; None of it if nothing is left to do.

What it raises ends the run.
"""


def launch(args: Sequence[str], processes: int, machines: int, threads: int, plan: Plan) -> int:
    """Let several processes do what a command line says, and begin again what one of them breaks off.

    Args:
        args: Command line after ``nst``.
        processes: How many on this machine.
        machines: How many machines; with several, MASTER_ADDR and MASTER_PORT in the environment are where they meet
            and NODE_RANK is which this is, and a process that dies ends the run.
        threads: Threads of each process.
        plan: Where processes begin.

    Returns:
        The exit code.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when the processes have written everything.
        SystemExit: After SIGTERM, likewise.
        Exception: What `plan` raises, or a process of the run.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    with tempfile.TemporaryDirectory(prefix="nst_") as made, _torch_quiet():
        place = Path(made)
        agent = _Agent(args, processes, machines, threads, plan, place)
        with signals_as_before(), contextlib.closing(agent):
            _listen(agent.answer)
            agent.run()
        said = reports(place)
    stopping = agent.received or next((report.code - 128 for report in said if report.code > 128), None)
    if stopping is not None:  # that process or one of them was told to end, which it told the others
        hand_on(stopping, before.get(stopping, signal.SIG_DFL))
    return _code(said)


def _code(said: Sequence[Report]) -> int:
    """The exit code of processes that have ended by themselves; what ended one of them is raised."""
    errors = [report for report in said if report.error is not None]
    for report in sorted(errors, key=lambda report: report.lost):  # what made the others lose it comes first
        if not report.lost or len(errors) == len(said):  # else one of them has come to its end without it
            report.fail()
    return max((report.code for report in said if report.error is None), default=0)


class _Agent(LocalElasticAgent):
    """torch's agent with a plan: how often it begins again, and from where, is not a matter of numbers alone.

    Attributes:
        received: The first signal that this process got.
    """

    def __init__(
        self, args: Sequence[str], processes: int, machines: int, threads: int, plan: Plan, place: Path
    ) -> None:
        self.received: int | None = None
        self._plan, self._place, self._machines = plan, place, machines
        shown = _shows_standard_error()
        streams = dict.fromkeys(range(1, processes), Std.ALL)  # only the first one speaks
        logs = place / "logs"
        logs.mkdir()
        spec = WorkerSpec(
            role="",
            local_world_size=processes,
            rdzv_handler=_meeting_place(machines),
            entrypoint=sys.executable,
            # The agent replaces names after a $ in them.
            args=("-m", "nst_lightning", *(arg.replace("$", "$$") for arg in args)),
            max_restarts=_ANY_NUMBER,
            monitor_interval=_LOOK,
            local_addr="127.0.0.1" if machines == 1 else None,
        )
        variables = {VARIABLE: str(place), "OMP_NUM_THREADS": str(threads)}
        specs = _Logs(variables, str(logs), redirects=streams, tee=Std.NONE if shown else {0: Std.ERR})
        super().__init__(spec, specs, log_line_prefix_template=None if shown else "${role_name}")
        start = plan(None)
        assert start is not None  # there is something to do
        start.write(place)

    def answer(self, number: int, _: FrameType | None) -> None:
        """Hand a signal on to the processes, which write what there is; before they can, there is nothing yet."""
        self.received = self.received or number
        self._signal(number if all_begun(self._place, self._worker_group.spec.local_world_size) else _KILL)

    def _signal(self, number: int) -> None:
        for handler in getattr(self._pcontext, "subprocess_handlers", {}).values():
            handler.proc.send_signal(number)  # which passes over those that have ended

    def close(self) -> None:
        """Close the meeting place."""
        self._worker_group.spec.rdzv_handler.shutdown()

    def _rendezvous(self, worker_group: WorkerGroup) -> None:
        if self._remaining_restarts < _ANY_NUMBER:  # a new place: the old one has addresses of processes that are gone
            self.close()
            worker_group.spec.rdzv_handler = _meeting_place(self._machines)
        super()._rendezvous(worker_group)

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        started: dict[int, Any] = super()._start_workers(worker_group)
        context = self._pcontext
        assert context is not None
        close = context.close

        def close_at_once(*_: Any, **__: Any) -> None:
            """Let no survivor of a process that died write what a new beginning would have to undo."""
            if self._machines > 1 and self.received is None:
                self._await_survivors()
            close(_KILL)
            for handler in getattr(context, "subprocess_handlers", {}).values():  # whose files stay open
                for stream in (handler._stdout, handler._stderr):
                    if stream is not None:
                        stream.close()

        context.close = close_at_once  # type: ignore[method-assign]
        if self.received is not None:  # while they were being started
            self._signal(_KILL)
        return started

    def _exit_barrier(self) -> None:
        """Wait for other machines, unless this one's processes have lost them."""
        if not any(report.error is not None for report in reports(self._place)):
            super()._exit_barrier()  # type: ignore[no-untyped-call]

    def _await_survivors(self) -> None:
        """Let processes write what there is when their connection to one that died is lost."""
        end = time.monotonic() + _PATIENCE
        for handler in getattr(self._pcontext, "subprocess_handlers", {}).values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                handler.proc.wait(max(0.0, end - time.monotonic()))

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state != WorkerState.FAILED:
            return result
        said = reports(self._place)
        if self.received is not None or any(report.code and report.is_final and not report.lost for report in said):
            self._remaining_restarts = 0
            return result
        rank, failure = next(iter(result.failures.items()))  # the first one; this process has ended the others
        report = next((report for report in said if report.rank == rank), None)
        size = worker_group.workers[0].world_size
        start = self._plan(Failure(rank + 1, size, failure.exitcode, report, last_words(self._place, rank)))
        if start is None:
            return RunResult(WorkerState.SUCCEEDED, return_values=dict.fromkeys(range(size)))
        start.write(self._place)
        return result


class _Logs(DefaultLogsSpecs):
    """Where processes write to, with variables for their environment."""

    def __init__(self, variables: Mapping[str, str], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._variables = variables

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        for environment in envs.values():
            environment.update(self._variables)
        return super().reify(envs)


def _meeting_place(machines: int) -> RendezvousHandler:
    """Where the processes find each other: on a free port of this machine, or where the environment says."""
    if machines == 1:
        here: dict[str, Any] = {"is_host": True}
        return get_rendezvous_handler(
            RendezvousParameters("c10d", "127.0.0.1:0", uuid.uuid4().hex, 1, 1, "127.0.0.1", **here)
        )
    address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), os.environ.get("MASTER_PORT", "")
    if not port.isdigit():
        raise UserError(
            f"MASTER_PORT: must be a port in the environment where trainer.num_nodes is {machines}, got '{port}'; set "
            "MASTER_ADDR, MASTER_PORT and NODE_RANK on each machine"
        )
    where: dict[str, Any] = {"rank": int(os.environ.get("NODE_RANK", "0")), "timeout": _MEETING}
    return get_rendezvous_handler(
        RendezvousParameters("static", f"{address}:{port}", "nst", machines, machines, **where)
    )


def _shows_standard_error() -> bool:
    """Whether what a child writes there appears where this process's own lines do, as it does not in a notebook."""
    try:
        return sys.stderr is None or sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):
        return False


def _listen(answer: Callable[[int, FrameType | None], None]) -> None:
    """Answer signals that end a run, unless they are to be ignored; see `nst_lightning.callbacks.Signals`."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _ENDING:
        if signal.getsignal(number) != signal.SIG_IGN or (number == signal.SIGINT and owns_process()):
            signal.signal(number, answer)


@contextlib.contextmanager
def _torch_quiet() -> Iterator[None]:
    """Keep to itself what torch's agent logs, and let it listen to no signal."""
    logger = logging.getLogger("torch.distributed.elastic")
    before, listens_to = (logger.handlers[:], logger.propagate), os.environ.get(_LISTENS)
    logger.handlers[:], logger.propagate = [logging.NullHandler()], False
    os.environ[_LISTENS] = ""
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before
        del os.environ[_LISTENS]
        if listens_to is not None:
            os.environ[_LISTENS] = listens_to
