"""The way into a Ray cluster and out of it, without Ray's own words, and with an answer in time."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

from nst_lightning.errors import UserError

PATIENCE = 20.0  # seconds in which a cluster has to answer
_LOCAL = "local"
# Ray's own variables for what its start says and sends.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
# Ray waits for ever where nobody answers, in code that no signal interrupts: another process tries first.
_TRIAL = """
import logging, sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
except BaseException as error:
    print(error)
    sys.exit(3)
"""


class Cluster:
    """A cluster that this process has joined.

    Args:
        address: See `RayEngine`.

    Attributes:
        ray: The package.

    Raises:
        UserError: See `RayEngine`.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
        if self._address.startswith("ray://"):
            raise UserError(
                f"--address: must be auto or HOST:PORT of a cluster that this machine is part of, got {address}; "
                "join it by 'ray start --address HOST:PORT --num-cpus 0', then use auto"
            )
        self.ray: Any = _package()
        self._joined = not self.ray.is_initialized()
        if self._joined:
            if self._address != _LOCAL:
                _try(self._address)
            with _quietly():
                self._join()

    def _join(self) -> None:
        begin: dict[str, Any] = {"include_dashboard": False} if self._address == _LOCAL else {}
        try:
            self.ray.init(address=self._address, log_to_driver=False, logging_level=logging.CRITICAL, **begin)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise _refusal(self._address, str(error)) from None
        # It prints what nodes say of their end on standard output all the same; this is the switch of its debugger.
        importlib.import_module("ray._private.worker")._worker_logs_enabled = False  # type: ignore[attr-defined]

    def leave(self) -> None:
        """Leave it, if this object has joined it."""
        if self._joined and self.ray.is_initialized():
            self._joined = False
            self.ray.shutdown()
            importlib.import_module("ray._private.worker")._worker_logs_enabled = True  # type: ignore[attr-defined]


def _package() -> Any:
    try:
        with _quietly():
            importlib.import_module("ray.util.scheduling_strategies")
            return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(
            f"--engine: ray must be installed, got '{error}'; pip install 'nst_lightning[ray]' on each machine"
        ) from None


def _try(address: str) -> None:
    """Find out whether a cluster answers.

    Raises:
        UserError: If none does in time.
    """
    environment = {**os.environ, **_QUIET}
    late = UserError(
        f"--address: must be that of a Ray cluster, got {address}, which did not answer within {PATIENCE:g} s; see "
        "that 'ray status' works on this machine"
    )
    begin = time.monotonic()
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal():
            socket.create_connection((host, int(port)), PATIENCE).close()
    except TimeoutError:
        raise late from None
    except (OSError, OverflowError) as error:
        raise _refusal(address, getattr(error, "strerror", None) or str(error)) from None
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _TRIAL, address],
            capture_output=True,
            text=True,
            timeout=max(0.0, PATIENCE - time.monotonic() + begin),
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise late from None
    if tried.returncode:
        raise _refusal(address, tried.stdout)


def _refusal(address: str, said: str) -> UserError:
    reason = " ".join(said.split())[:300].rstrip(".") or "nothing was said"
    if address == _LOCAL:
        return UserError(f"--engine: Ray cannot begin on this machine: {reason}")
    return UserError(
        f"--address: must be that of a Ray cluster which this machine is part of, got {address}: {reason}; "
        "'ray start --address HOST:PORT' joins one"
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Import and begin Ray without its words, and find environment, warnings and handlers as before."""
    before = dict(os.environ)
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    os.environ.update({name: value for name, value in _QUIET.items() if name not in before})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
