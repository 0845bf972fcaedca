"""How much clients that watch a picture slow its run, as pairs of runs in turn: alone, and with so many watching.

    python tools/studio_load.py --clients 20 --pairs 3 --size 256 --evaluations 60

Starts ``nst studio --headless`` in a folder of its own. Each client follows the events of all pictures, and fetches
the preview whenever it has changed, as the page does. Prints seconds of each run, and the share by which those with
clients took longer, in the middle and at the ends of their range.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import httpx


async def watch(client: httpx.AsyncClient, name: str, seen: list[int]) -> None:
    """Follow a picture until it has ended; count events and previews."""
    shown = ""
    async with client.stream("GET", "/api/events", timeout=None) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            picture = json.loads(line.removeprefix("data: "))
            if picture["id"] != name:
                continue
            seen[0] += 1
            if picture["preview"] and picture["preview"] != shown:
                shown = picture["preview"]
                preview = await client.get(shown)
                seen[1] += preview.status_code == 200
            if picture["status"] in {"finished", "failed", "stopped"}:
                return


async def run(client: httpx.AsyncClient, wish: dict[str, Any], clients: int) -> tuple[float, list[int]]:
    """Make a picture while so many watch; returns its seconds, and events and previews that all have had."""
    name = (await client.post("/api/pictures", json=wish)).json()["id"]
    seen = [0, 0]
    watchers = [asyncio.create_task(watch(client, name, seen)) for _ in range(clients)]
    while True:
        picture = (await client.get(f"/api/pictures/{name}")).json()
        if picture["status"] in {"finished", "failed"}:
            break
        await asyncio.sleep(2)
    await asyncio.gather(*watchers)
    await client.delete(f"/api/pictures/{name}")
    if picture["status"] == "failed":
        raise SystemExit(picture["error"])
    return float(picture["seconds"]), seen


async def compare(address: str, options: argparse.Namespace) -> None:
    """Let clients of one process, each with connections of its own, watch one of two."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=60, trust_env=False, limits=limits) as client:
        await compare_with(client, options)


async def compare_with(client: httpx.AsyncClient, options: argparse.Namespace) -> None:
    """Make pairs of pictures in turn, and print what they took."""
    wish = {"content": "demo:content", "styles": [{"image": "demo:style"}], "size": options.size}
    wish |= {"evaluations": options.evaluations}
    await run(client, wish, 0)  # networks are loaded
    shares = []
    for pair in range(options.pairs):
        found = {}
        for clients in (0, options.clients) if pair % 2 == 0 else (options.clients, 0):
            found[clients], seen = await run(client, wish, clients)
            print(f"{clients:3d} clients: {found[clients]:7.2f} s, {seen[0]} events, {seen[1]} previews", flush=True)
        shares.append(found[options.clients] / found[0] - 1)
    print(f"slower by {statistics.median(shares):+.1%} (from {min(shares):+.1%} to {max(shares):+.1%})")


def main() -> None:
    """Start a server, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    command = [sys.executable, "-m", "nst_lightning", "studio", "--headless", "--port", "0", "--device", options.device]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([*command, "--folder", folder], stderr=subprocess.PIPE, text=True) as server,
    ):
        assert server.stderr is not None
        found = re.search(r"http://\S+", server.stderr.readline())
        assert found is not None
        try:
            asyncio.run(compare(found[0], options))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
