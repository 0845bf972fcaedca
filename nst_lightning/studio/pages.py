"""The page, its files, and what is said of the server itself."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.datastructures import Headers

from nst_lightning import __version__
from nst_lightning.studio.api import The
from nst_lightning.studio.facts import facts
from nst_lightning.studio.refusals import RefusedError
from nst_lightning.studio.security import COOKIE, Token

PAGE = Path(__file__).parent / "page"
_YEAR = 365 * 24 * 3600  # seconds
_PAUSE = 0.3  # seconds after a wrong token

router = APIRouter()
page_router = APIRouter()
_templates = Environment(loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined)


@router.get("/health", summary="Whether the server is there")
async def health() -> dict[str, str]:
    """And which version it is."""
    return {"status": "ok", "version": __version__}


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
def metrics(studio: The) -> Response:
    """Pictures by state, evaluations, uploads, seconds, memory of the process."""
    return Response(studio.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/api/facts", summary="Device, presets, pictures of the package, limits and formats")
def all_facts(studio: The) -> dict[str, Any]:
    """What a client has to know before it asks for anything."""
    return facts(studio.workshop.devices[0], studio.limits)


@router.post("/login", status_code=204, summary="Give the token, and get a cookie", response_class=Response)
async def login(request: Request) -> Response:
    """The token as JSON or as a form; a form is sent on to the page."""
    token: Token = request.app.state.token
    body = (await request.body()).decode("utf-8", errors="replace")
    is_form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    given = parse_qs(body).get("token", [""])[0] if is_form else _token_in(body)
    if not token.is_right(given):
        await asyncio.sleep(_PAUSE)
        raise RefusedError(
            "token: must be the one that the server was started with, got another; see its terminal", 401
        )
    answer: Response = RedirectResponse("/", 303) if is_form else Response(status_code=204)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, token.cookie, max_age=_YEAR, httponly=True, samesite="strict", secure=secure)
    return answer


def _token_in(body: str) -> str:
    try:
        found = json.loads(body)["token"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return found if isinstance(found, str) else ""


@page_router.get("/", include_in_schema=False)
def index(request: Request) -> HTMLResponse:
    """The page, or its form for the token."""
    token: Token = request.app.state.token
    needed = not token.admits(Headers(scope=request.scope))
    text = _templates.get_template("index.html").render(version=__version__, token_needed=needed)
    return HTMLResponse(text, headers={"cache-control": "no-store"})
