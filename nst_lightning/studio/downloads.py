"""A picture's files as clients want them."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path

from nst_lightning.callbacks.frames import Frames
from nst_lightning.callbacks.timelapse import FOLDER, Timing, make_shots
from nst_lightning.files.yaml_text import load_yaml
from nst_lightning.images import read_image, read_metadata, resize, target_size, write_image
from nst_lightning.images.film import write_film
from nst_lightning.studio.asked import Asked
from nst_lightning.studio.configuration import published
from nst_lightning.studio.maker import Place
from nst_lightning.studio.recipe import command, names_of, plain_words
from nst_lightning.studio.records import Record
from nst_lightning.studio.refusals import RefusedError
from nst_lightning.studio.uploads import Uploads

TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "tiff": "image/tiff",
    "avif": "image/avif",
    "webp": "image/webp",
    "jxl": "image/jxl",
}
FILMS = {"webp": "image/webp", "gif": "image/gif"}
_DEEP = ("png", "tiff", "jxl")
_SHARED_OUT = "--model.stages=null"  # of a picture that went on
_GIF_LONGEST, _GIF_FPS = 480, 10
_encoding = threading.Lock()  # one at a time: a large picture takes much memory


def result(place: Place, kind: str, bits: int, quality: int = 95) -> bytes:
    """The picture as a file.

    Args:
        place: Its files.
        kind: One of `TYPES`.
        bits: 8, or 16 for PNG, TIFF and JPEG XL.
        quality: Of JPEG and AVIF; JPEG XL is without loss, as what it is made of is.

    Raises:
        UserError: If there is none yet, or the format has no such bits.
    """
    if not (place.fine.is_file() and place.result.is_file()):
        raise RefusedError("picture: must have a result, got none yet; stop it, or wait for its end", 409, "picture")
    if bits == 16 and kind not in _DEEP:
        raise RefusedError(f"bits: must be 8 for {kind}, got 16; png, tiff and jxl have 16", field="bits")
    if kind == "png" and bits == 8:
        return place.result.read_bytes()
    # Formats without loss in 8 bits hold exactly what the PNG holds.
    source = place.result if bits == 8 and kind in {"tiff", "webp", "jxl"} else place.fine
    with _encoding, tempfile.TemporaryDirectory(prefix="nst_") as folder:
        picture, path = read_image(source), Path(folder) / f"picture.{kind}"
        metadata = read_metadata(place.result)
        quality = 100 if kind == "jxl" else quality
        write_image(path, picture.pixels, alpha=picture.alpha, bits=bits, quality=quality, metadata=metadata)
        return path.read_bytes()


def film(place: Place, kind: str, content: Path | None) -> bytes:
    """The picture's growth as an animation.

    Args:
        place: Its files.
        kind: One of `FILMS`.
        content: What it begins with.

    Raises:
        UserError: If there is none yet.
    """
    if not place.film.is_file():
        raise RefusedError("picture: must have a timelapse, got none yet; stop it, or wait for its end", 409, "picture")
    if kind == "webp":
        return place.film.read_bytes()
    with _encoding, tempfile.TemporaryDirectory(prefix="nst_") as folder:
        frames = Frames(place.run / FOLDER, 1000)
        frames.begin(1 << 40)  # all of them
        picture = read_image(place.fine)
        size = target_size(picture.height, picture.width, min(_GIF_LONGEST, max(picture.height, picture.width)))
        first = None if content is None else resize(read_image(content).pixels, size).clamp(0, 1)
        pixels = resize(picture.pixels, size).clamp(0, 1)
        shots, rate = make_shots(frames, first, pixels, Timing(8.0, _GIF_FPS, 2.0), 8 * _GIF_FPS)
        path = Path(folder) / "film.gif"
        write_film(path, shots, size, rate, None)
        return path.read_bytes()


def configuration(record: Record, place: Place, uploads: Uploads) -> str:
    """The settings as YAML that ``nst fit --config`` takes."""
    asked = Asked(**record.asked)
    if place.settings.is_file():
        return published(place.settings.read_text(encoding="utf-8"), asked, names_of(asked, uploads))
    return str((record.plan or {}).get("configuration", ""))


def command_of(record: Record, place: Place, uploads: Uploads) -> str:
    """The command line that makes the picture again."""
    asked = Asked(**record.asked)
    return command(asked, names_of(asked, uploads), [*plain_words(record.more), *_stages(record, place)])


def _stages(record: Record, place: Place) -> list[str]:
    """Options for the stages of a picture that went on: it was asked for so many evaluations, and shared them out."""
    if _SHARED_OUT not in record.more or not place.settings.is_file():
        return []
    model = load_yaml(place.settings.read_text(encoding="utf-8")).get("model") or {}
    if not model.get("stages") or model.get("evaluations") is not None:
        return []
    return [f"--model.stages={json.dumps(model['stages'])}", "--model.evaluations=null"]
