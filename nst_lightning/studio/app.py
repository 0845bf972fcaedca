"""The server's parts put together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from nst_lightning import __version__
from nst_lightning.errors import UserError
from nst_lightning.studio import api, api_uploads, pages
from nst_lightning.studio.invalid import line_of
from nst_lightning.studio.refusals import RefusedError, field_of
from nst_lightning.studio.security import Guard, Token, TooMuchError, too_much
from nst_lightning.studio.studio import Studio

_DESCRIPTION = """\
Pictures by neural style transfer: bring a content and styles, ask for a picture, watch it grow, fetch it.

Errors are `{"error": "one line", "field": "what of the request it is about, or null"}`."""


def create_app(studio: Studio, token: str | None = None, *, headless: bool = False) -> FastAPI:
    """The server as an ASGI application; it opens the studio when it starts, and closes it when it ends.

    Args:
        studio: What it serves.
        token: What clients have to give; None: nothing.
        headless: Whether to leave out the page.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        studio.hub.open()
        studio.open()
        yield
        await run_in_threadpool(studio.close)

    app = FastAPI(
        title="nst studio",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,  # their scripts come from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=lifespan,
    )
    app.state.studio, app.state.token = studio, Token(token)
    app.state.uploading = api_uploads.uploading_at_once()
    for router in (api.router, api_uploads.router, pages.router):
        app.include_router(router)
    if not headless:
        app.include_router(pages.page_router)
        app.mount("/static", StaticFiles(directory=pages.PAGE), name="static")
    _answer_errors(app, studio)
    app.add_middleware(Guard, token=app.state.token, limits=studio.limits, metrics=studio.metrics)
    return app


def _answer_errors(app: FastAPI, studio: Studio) -> None:
    """Say each error in the product's one line."""

    async def on_user_error(_: Request, error: Exception) -> JSONResponse:
        status = error.status if isinstance(error, RefusedError) else 422
        field = error.field if isinstance(error, RefusedError) else field_of(str(error))
        line = str(error).replace(f"{studio.folder}/", "")
        headers = {"www-authenticate": "Bearer"} if status == 401 else {}
        return _line(status, line, field, headers)

    async def on_invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        line, field = line_of(first)
        return _line(404 if "path" in first["loc"] else 422, line, field)

    async def on_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _line(error.status_code, f"request: {error.detail}; see /api/openapi.json", None, error.headers)

    async def on_too_much(request: Request, _: Exception) -> JSONResponse:
        refusal = too_much(studio.limits, is_upload=request.url.path == "/api/uploads")
        return _line(413, str(refusal), refusal.field, {"connection": "close"})

    app.add_exception_handler(UserError, on_user_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(TooMuchError, on_too_much)


def _line(status: int, text: str, field: str | None, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": text, "field": field}, status, headers=headers)
