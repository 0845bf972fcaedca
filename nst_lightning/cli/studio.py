"""``nst studio``: a page on this machine where pictures are made, and the same over HTTP."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from nst_lightning.cli.plain import PlainParser
from nst_lightning.errors import UserError
from nst_lightning.process.loading import load

TOKEN = "NST_STUDIO_TOKEN"  # in the environment
_DESCRIPTION = """\
Serve a page where pictures are made from photographs and paintings, and the same over HTTP.

  nst studio                       the page on this machine: http://127.0.0.1:7860
  nst studio --headless            HTTP alone, for programs: /api/openapi.json describes it
  NST_STUDIO_TOKEN=... nst studio --host 0.0.0.0
                                   for others, too, who have to give the token

Pictures are the server's: closing the page does not end them, and after Ctrl-C, a kill or a power failure those under
way go on from their checkpoints when it is started again."""
_NEEDED = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "multipart": "python_multipart",
    "sse_starlette": "sse_starlette",
    "prometheus_client": "prometheus_client",
}


def parser() -> argparse.ArgumentParser:
    """The command's words."""
    words = PlainParser(
        prog="nst studio",
        usage="nst studio [options]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = words.add_argument
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen; any but 127.0.0.1 needs a token")
    add("--port", type=int, default=7860, metavar="N", help="default: 7860; 0 takes a free one")
    add("--token", metavar="TEXT", help=f"what clients have to give, at least 8 characters; {TOKEN} says it unseen")
    add("--folder", default="studio", metavar="FOLDER", help="where uploads and pictures lie; default: studio")
    add("--headless", action="store_true", help="HTTP alone, without the page")
    add("--open", action="store_true", help="open the page in a browser")
    add("--device", nargs="+", default=[], metavar="NAME", help="cpu, cuda:1, mps, xpu: each makes one "
        "picture at a time; default: the fastest")  # fmt: skip
    add("--max_megabytes", type=float, default=50.0, metavar="X", help="of a file that is brought; default: 50")
    add("--max_megapixels", type=float, default=64.0, metavar="X", help="of a picture; default: 64")
    add("--keep_hours", type=float, default=24.0, metavar="X", help="after which unused uploads go; default: 24")
    add("--checkpoint_seconds", type=float, default=10.0, metavar="X", help="between two checkpoints of a run: what a "
        "kill costs; default: 10")  # fmt: skip
    return words


def main(args: Sequence[str]) -> int:
    """Run ``nst studio`` with the command line after the subcommand; returns the exit code."""
    options = parser().parse_args(list(args))
    missing = [name for name, module in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"nst studio: needs {', '.join(missing)}, not installed; pip install 'nst_lightning[studio]'")
    if not 0 <= options.port < 1 << 16:
        raise UserError(f"--port: must be from 0 to 65535, got {options.port}; 7860 is the default")
    limits, server = load("nst_lightning.studio.limits"), load("nst_lightning.studio.server")
    service = server.Service(
        host=options.host,
        port=options.port,
        token=options.token or os.environ.get(TOKEN) or None,
        folder=Path(options.folder),
        devices=tuple(options.device),
        headless=options.headless,
        shown=options.open,
        limits=limits.Limits(
            options.max_megabytes, options.max_megapixels, options.keep_hours, options.checkpoint_seconds
        ),
    )
    return int(server.serve(service))
