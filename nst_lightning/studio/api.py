"""The HTTP endpoints for pictures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import yaml
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from nst_lightning.studio import downloads
from nst_lightning.studio.asked import ID, Asked, More
from nst_lightning.studio.configuration import asked_of
from nst_lightning.studio.records import UNDER_WAY
from nst_lightning.studio.refusals import RefusedError, UnknownError
from nst_lightning.studio.studio import Studio

router = APIRouter(prefix="/api")
_KEEP_ALIVE = 15  # seconds


def studio_of(request: Request) -> Studio:
    """The studio that a server serves."""
    studio: Studio = request.app.state.studio
    return studio


The = Annotated[Studio, Depends(studio_of)]
Id = Annotated[str, Path(pattern=ID)]


@router.post("/plan", summary="Say what a picture would take, and start nothing")
def plan(studio: The, asked: Asked) -> dict[str, Any]:
    """Device, precision, size, evaluations, seconds, bytes, configuration and command."""
    return studio.estimator.plan(asked)


@router.post("/configuration", summary="From a YAML configuration to the fields of a request")
async def from_configuration(request: Request) -> dict[str, Any]:
    """Pictures are not in it: they are named by their files' names, for the client to find."""
    body = (await request.body()).decode("utf-8", errors="replace")
    try:
        return await run_in_threadpool(asked_of, body)
    except yaml.YAMLError as error:
        raise RefusedError(
            f"body: must be YAML, got {' '.join(str(error).split())[:150]}; mend it", field="body"
        ) from None


@router.post("/pictures", status_code=201, summary="Ask for a picture")
def submit(studio: The, asked: Asked) -> dict[str, Any]:
    """It waits for its turn; 429 if too many do."""
    return studio.views.picture(studio.submit(asked))


@router.get("/pictures", summary="All pictures, the newest first")
def pictures(studio: The) -> list[dict[str, Any]]:
    """With what is known of each."""
    return [studio.views.picture(record) for record in studio.shelf.all()]


@router.get("/pictures/{name}", summary="A picture")
def picture(studio: The, name: Id) -> dict[str, Any]:
    """What is known of it."""
    return studio.views.picture(studio.shelf.get(name))


@router.get("/events", summary="Changes of all pictures, as server-sent events")
async def events(studio: The) -> EventSourceResponse:
    """`picture` with a picture's newest state, at most twice a second; `removed` with its id."""
    return EventSourceResponse(studio.hub.stream(), ping=_KEEP_ALIVE)


@router.get("/pictures/{name}/events", summary="Changes of one picture, until it has ended")
async def events_of(studio: The, name: Id) -> EventSourceResponse:
    """As for all."""
    studio.shelf.get(name)

    async def stream() -> AsyncIterator[Any]:
        async for event in studio.hub.stream(name, lambda _: studio.shelf.get(name).status not in UNDER_WAY):
            yield event

    return EventSourceResponse(stream(), ping=_KEEP_ALIVE)


@router.get("/pictures/{name}/preview", summary="The picture as it is just now, as JPEG", response_class=Response)
async def preview(studio: The, name: Id, v: Annotated[str, Query(max_length=20)] = "") -> Response:
    """At most 1024 px; made anew about every half second while somebody looks."""
    studio.shelf.get(name)
    studio.hub.look(name)
    growth = studio.shelf.growth(name)
    if growth.preview is None:
        raise UnknownError("preview", "wait for the first evaluations")
    return Response(growth.preview, media_type="image/jpeg", headers={"cache-control": "no-store"})


@router.get("/pictures/{name}/losses", summary="The curve of the loss")
def losses(studio: The, name: Id) -> dict[str, list[tuple[int, float]]]:
    """Evaluations and weighted losses, at most 500."""
    studio.shelf.get(name)
    return {"total": studio.shelf.growth(name).curve()}


@router.post("/pictures/{name}/stop", summary="Stop, and keep what there is")
def stop(studio: The, name: Id) -> dict[str, Any]:
    """The evaluation under way is finished, and everything is written."""
    return studio.views.picture(studio.stop(name))


@router.post("/pictures/{name}/continue", summary="Go on with the same state of the optimiser")
def go_on(studio: The, name: Id, more: More) -> dict[str, Any]:
    """With what was left, or so many more evaluations, or another strength."""
    return studio.views.picture(studio.go_on(name, more))


@router.post("/pictures/{name}/larger", status_code=201, summary="Twice the size, beginning with this picture")
def larger(studio: The, name: Id) -> dict[str, Any]:
    """A new picture, whose parent is this one."""
    return studio.views.picture(studio.larger(name))


@router.delete("/pictures/{name}", status_code=204, summary="Stop and remove", response_class=Response)
def remove(studio: The, name: Id) -> Response:
    """With all its files; uploads are kept for their time."""
    studio.remove(name)
    return Response(status_code=204)


@router.get("/pictures/{name}/result", summary="The picture as a file", response_class=Response)
def result(
    studio: The,
    name: Id,
    format: Literal["png", "jpg", "tiff", "avif", "webp", "jxl"] = "png",
    bits: Literal["8", "16"] = "8",
) -> Response:
    """PNG by default, exactly as the command would write it."""
    studio.shelf.get(name)
    content = downloads.result(studio.shelf.place(name), format, int(bits))
    return _attachment(content, downloads.TYPES[format], f"picture_{name}.{format}")


@router.get("/pictures/{name}/timelapse", summary="The picture's growth as an animation", response_class=Response)
def timelapse(studio: The, name: Id, format: Literal["webp", "gif"] = "webp") -> Response:
    """From the content to the result."""
    image = studio.shelf.get(name).asked.get("content")
    path = None if image is None else studio.uploads.path(image)
    content = downloads.film(studio.shelf.place(name), format, path)
    return _attachment(content, downloads.FILMS[format], f"timelapse_{name}.{format}")


@router.get("/pictures/{name}/configuration", summary="The settings as YAML", response_class=PlainTextResponse)
def configuration(studio: The, name: Id) -> Response:
    """Which `nst fit --config` takes in the folder of the pictures."""
    record = studio.shelf.get(name)
    text = downloads.configuration(record, studio.shelf.place(name), studio.uploads)
    return _attachment(text.encode(), "application/yaml", f"picture_{name}.yaml")


@router.get("/pictures/{name}/command", summary="The command that repeats it", response_class=PlainTextResponse)
def command(studio: The, name: Id) -> str:
    """One line for a shell."""
    record = studio.shelf.get(name)
    return downloads.command_of(record, studio.shelf.place(name), studio.uploads) + "\n"


def _attachment(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})
