"""Clients of a studio in this process, and servers in processes of their own."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import time

import httpx
import pytest
from forked import Running
from PIL import Image

pytest.importorskip("fastapi")

import uvicorn

from nst_lightning.studio.app import create_app
from nst_lightning.studio.limits import Limits
from nst_lightning.studio.studio import Studio

PATIENCE = 600  # seconds in which anything here has happened, however busy the machine is
ASKED = {"content": "demo:content", "styles": [{"image": "demo:style"}], "size": 48, "evaluations": 5}


def png(width=48, height=36, colour=(200, 90, 40)):
    """A picture of one colour as PNG."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "PNG")
    return out.getvalue()


@contextlib.contextmanager
def studio_client(folder, token=None, limits=None, **options):
    """A client of a studio, which a thread of this process serves."""
    studio = Studio(folder, ["cpu"], limits or Limits())
    app = create_app(studio, token, **options)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1, server_header=False)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + PATIENCE
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://localhost:{port}", timeout=PATIENCE, trust_env=False) as client:
            client.studio = studio
            yield client
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def upload(client, content=None, name="picture.png", **fields):
    """Bring a picture; returns its id."""
    answer = client.post("/api/uploads", files={"file": (name, content or png())}, data=fields)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def ask(client, **wish):
    """Ask for a picture; returns its id."""
    answer = client.post("/api/pictures", json={**ASKED, **wish})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def wait_for(client, name, *states, reached=lambda picture: True):
    """Wait until a picture is in a state; returns it."""
    states = states or ("finished",)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        picture = client.get(f"/api/pictures/{name}").json()
        if picture["status"] in states and reached(picture):
            return picture
        assert picture["status"] not in {"failed", "finished"} - set(states), picture
        time.sleep(0.05)
    raise AssertionError(f"not {states} in time: {picture}")


def made(client, **wish):
    """A finished picture's id."""
    name = ask(client, **wish)
    wait_for(client, name)
    return name


def pixels(content):
    """The samples of a picture's file."""
    with Image.open(io.BytesIO(content)) as picture:
        return picture.convert("RGB").tobytes()


class Server:
    """``nst studio`` in a process of its own.

    Args:
        folder: Where it works.
        words: More of its command line.
    """

    def __init__(self, folder, *words):
        place = folder.with_name(f"{folder.name}.place")
        place.mkdir(exist_ok=True)
        self._running = Running(place, ["studio", "--port", 0, "--device", "cpu", "--folder", folder, *words])
        self._running.wait_for(lambda: re.search(r"http://\S+\s", self._running.said))
        self.address = re.search(r"http://\S+", self._running.said)[0]
        self.client = httpx.Client(base_url=self.address, timeout=PATIENCE, trust_env=False)

    def end(self, number):
        """Send a signal, and wait; returns how it ended."""
        self.client.close()
        return self._running.end(number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        if not self._running.is_over:
            self._running.end()
