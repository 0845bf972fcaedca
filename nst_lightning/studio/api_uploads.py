"""The HTTP endpoints for uploads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from nst_lightning.studio.api import The
from nst_lightning.studio.asked import IMAGE
from nst_lightning.studio.refusals import RefusedError
from nst_lightning.studio.studio import Studio
from nst_lightning.studio.uploads import Upload

router = APIRouter(prefix="/api/uploads")
_PIECE = 1 << 18  # bytes
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "kind": {"type": "string", "enum": ["picture", "mask"], "default": "picture"},
                    },
                }
            }
        },
    }
}


@router.post("", status_code=201, summary="Bring a picture", openapi_extra=_FORM)
async def upload(studio: The, request: Request) -> dict[str, Any]:
    """413 if it has too many bytes, 422 if it is no picture or has too many pixels."""
    # A few at a time, so that memory and disk stay bounded however many come.
    async with request.app.state.uploading, request.form(max_files=1, max_fields=4, max_part_size=4096) as form:
        file, kind = form.get("file"), form.get("kind") or "picture"
        if not isinstance(file, UploadFile):
            raise RefusedError("file: must be a picture in a multipart form, got none; send it as the field file")
        if kind not in {"picture", "mask"}:
            raise RefusedError("kind: must be picture or mask, got another word; leave it out", field="kind")
        found = await _take(studio, file, str(kind))
    studio.metrics.uploads.inc()
    return about(found)


async def _take(studio: Studio, file: UploadFile, kind: str) -> Upload:
    """Put a file into a folder of its own, and see whether it is a picture."""
    place = await run_in_threadpool(studio.uploads.new_place)
    try:
        await _save(file, place / "incoming")
        return await run_in_threadpool(studio.uploads.add, place, file.filename or "picture", kind)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


async def _save(file: UploadFile, path: Path) -> None:
    async with await anyio.open_file(path, "xb") as out:
        while piece := await file.read(_PIECE):
            await out.write(piece)


def about(upload: Upload) -> dict[str, Any]:
    """What clients see of an upload."""
    return {
        "id": upload.id,
        "name": upload.name,
        "kind": upload.kind,
        "width": upload.width,
        "height": upload.height,
        "url": f"/api/uploads/{upload.id}",
    }


@router.get("/{image}", summary="A small picture of an upload", response_class=Response)
def thumbnail(studio: The, image: Annotated[str, InPath(pattern=IMAGE)]) -> Response:
    """PNG of at most 512 px; names such as demo:content work, too."""
    content = studio.uploads.thumbnail(image)
    return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=3600"})


def uploading_at_once() -> anyio.Semaphore:
    """How many uploads are read at a time."""
    return anyio.Semaphore(4)
