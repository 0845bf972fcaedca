"""The process that serves: uvicorn, and what signals mean to it."""

from __future__ import annotations

import signal
import socket
import threading
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import uvicorn

from nst_lightning.console import log
from nst_lightning.errors import UserError
from nst_lightning.hardware.accelerator import choose_accelerator, name_device, split_device
from nst_lightning.studio.app import create_app
from nst_lightning.studio.limits import Limits
from nst_lightning.studio.security import LOOPBACK
from nst_lightning.studio.studio import Studio

_PATIENCE = 3  # seconds in which open connections may end
_TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Service:
    """How to serve.

    Args:
        host: Where to listen.
        port: Likewise; 0 takes a free one.
        token: What clients have to give.
        folder: Where uploads and pictures lie.
        devices: Where pictures are made; none: the fastest device.
        headless: Whether to leave out the page.
        shown: Whether to open the page in a browser.
        limits: What is taken from outside.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    folder: Path = Path("studio")
    devices: Sequence[str] = ()
    headless: bool = False
    shown: bool = False
    limits: Limits = field(default_factory=Limits)


def serve(service: Service) -> int:
    """Serve until a signal; returns the exit code.

    Raises:
        UserError: If something asked for cannot be done.
        KeyboardInterrupt: After Ctrl-C, when runs have written their checkpoints.
    """
    if service.token is not None and len(service.token) < 8:
        raise UserError("--token: must have at least 8 characters, got fewer; python -c 'import secrets; "
                        "print(secrets.token_urlsafe())' makes one")  # fmt: skip
    if service.token is None and service.host not in LOOPBACK:
        raise UserError(
            f"--host: must be 127.0.0.1 without a token, got {service.host}; give --token or NST_STUDIO_TOKEN"
        )
    devices = [_device(name) for name in service.devices or ("auto",)]
    if len(set(devices)) < len(devices):
        raise UserError(f"--device: must name each device once, got {' '.join(devices)}; leave one out")
    with _listening(service) as listener:
        studio = Studio(service.folder.absolute(), devices, service.limits)
        return _serve(service, studio, listener)


def _serve(service: Service, studio: Studio, listener: socket.socket) -> int:
    app = create_app(studio, service.token, headless=service.headless)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_PATIENCE,
        proxy_headers=False,
    )
    server = _Server(config, service)
    terminated = threading.Event()

    def on_terminate(_: int, __: FrameType | None) -> None:
        terminated.set()

    before = signal.signal(signal.SIGTERM, on_terminate)  # uvicorn raises again here what has ended it
    try:
        server.run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
        studio.close()
    return _TERMINATED if terminated.is_set() else 0


def _listening(service: Service) -> socket.socket:
    """Take the port before anything is loaded.

    Raises:
        UserError: If that cannot be.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(service.host, service.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise UserError(
            f"--port: must be free, got {service.port} on {service.host} ({error.strerror}); choose another"
        ) from None


class _Server(uvicorn.Server):
    """Says where it listens."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if not self.started:
            return
        port = sockets[0].getsockname()[1] if sockets else self._service.port
        host = self._service.host
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{port}"
        what = "serving HTTP" if self._service.headless else "the page is"
        log.say(
            "studio",
            f"studio: {what} at {address} (Ctrl-C ends it; pictures under way go on at the next start)",
            address=address,
            folder=str(self._service.folder.absolute()),
        )
        if self._service.shown and not self._service.headless:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _device(name: str) -> str:
    """A device by its kind and its number.

    Raises:
        UserError: If it is not there.
    """
    kind, index = split_device(name, "--device")
    return name_device(choose_accelerator(kind).value, index)
