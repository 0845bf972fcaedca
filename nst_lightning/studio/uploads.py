"""Pictures from outside, in a folder of their own: measured before they are decoded, and removed after a time."""

from __future__ import annotations

import contextlib
import io
import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from nst_lightning.demo import CONTENT, MASK, STYLE
from nst_lightning.errors import UserError
from nst_lightning.files.atomic import replacing
from nst_lightning.files.folders import make_folder
from nst_lightning.images import check_image, read_image, resize, target_size
from nst_lightning.images.io import to_samples
from nst_lightning.studio.limits import Limits
from nst_lightning.studio.refusals import RefusedError, UnknownError

DEMO = {"demo:content": CONTENT, "demo:style": STYLE, "demo:mask": MASK}
THUMBNAIL = 512  # pixels of the long side
_SUFFIXES = frozenset(  # which the readers of some kinds of files go by
    (
        *(
            "jpg",
            "jpeg",
            "png",
            "webp",
            "tif",
            "tiff",
            "avif",
            "heic",
            "heif",
            "jxl",
            "gif",
            "bmp",
            "ppm",
            "pgm",
            "pnm",
        ),
        *("jp2", "j2k", "tga", "dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2"),
    )
)
_FACTS = "upload.json"
_decoding = threading.Lock()  # one picture at a time is decoded, however many come


@dataclass(frozen=True)
class Upload:
    """A picture from outside.

    Attributes:
        id: Its name here.
        name: That of the file where it comes from, without folders; it is shown and never used as a path.
        kind: ``picture`` or ``mask``.
        width: In pixels.
        height: In pixels.
        file: The name of the file in its folder.
        created: Seconds since the epoch.
    """

    id: str
    name: str
    kind: str
    width: int
    height: int
    file: str
    created: float


class Uploads:
    """The folder of uploads.

    Args:
        folder: Where.
        limits: What is taken.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = make_folder(folder)
        self._limits = limits
        self._lock = threading.Lock()
        self._known: dict[str, Upload] = {}
        self._thumbnails: dict[str, bytes] = {}  # of the package's own pictures
        for place in self.folder.iterdir():
            try:
                facts = json.loads((place / _FACTS).read_text(encoding="utf-8"))
                self._known[place.name] = Upload(**facts)
            except (OSError, ValueError, TypeError):  # not whole when the process was killed
                shutil.rmtree(place, ignore_errors=True)

    def new_place(self) -> Path:
        """A folder for an upload that is coming in.

        Raises:
            RefusedError: If there are too many.
        """
        if len(self._known) >= self._limits.uploads:
            raise RefusedError(
                f"file: must be one of at most {self._limits.uploads} uploads, got one more; wait", 429, "file"
            )
        return make_folder(self.folder / secrets.token_hex(8))

    def add(self, place: Path, name: str, kind: str) -> Upload:
        """Take a file that has come in, if it is a picture.

        Args:
            place: The folder, in which the file is called ``incoming``.
            name: What the client calls it.
            kind: ``picture`` or ``mask``.

        Raises:
            RefusedError: If it is none, or too large a one; its folder is removed.
        """
        shown = plain_name(name)
        suffix = Path(shown).suffix.lower()
        file = place / f"original{suffix if suffix[1:] in _SUFFIXES else ''}"
        try:
            (place / "incoming").rename(file)
            with _decoding:
                height, width = self._measure(file)
                picture = _thumbnail(file)
            with replacing(place / "thumbnail.png") as out:
                out.write(picture)
            upload = Upload(place.name, shown, kind, width, height, file.name, time.time())
            with replacing(place / _FACTS) as out:
                out.write(json.dumps(asdict(upload)).encode())
        except UserError as error:
            shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, RefusedError):
                raise
            line = str(error).replace(str(file), shown)
            raise RefusedError(line, field="file") from None
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        with self._lock:
            self._known[upload.id] = upload
        return upload

    def _measure(self, file: Path) -> tuple[int, int]:
        """Height and width by the header, before anything is decoded."""
        height, width = check_image(file, name="file")
        if height * width > self._limits.megapixels * 1e6:
            raise RefusedError(
                f"file: must have at most {self._limits.megapixels:g} megapixels, got {width}x{height} px; make it "
                "smaller",
                field="file",
            )
        return height, width

    def path(self, image: str) -> Path:
        """The file of an upload, or of one of the package's pictures.

        Raises:
            UnknownError: If there is none.
        """
        if image in DEMO:
            return DEMO[image]
        upload = self.find(image)
        return self.folder / upload.id / upload.file

    def find(self, image: str) -> Upload:
        """What is known of an upload.

        Raises:
            UnknownError: If there is none.
        """
        with self._lock:
            found = self._known.get(image)
        if found is None:
            raise UnknownError("image", "upload the picture again")
        return found

    def name(self, image: str) -> str:
        """What a picture is called where it comes from; those of the package are called as the command takes them."""
        return image if image in DEMO else self.find(image).name

    def thumbnail(self, image: str) -> bytes:
        """A small picture as PNG.

        Raises:
            UnknownError: If there is none.
        """
        if image in DEMO:
            with _decoding:
                if image not in self._thumbnails:
                    self._thumbnails[image] = _thumbnail(DEMO[image])
            return self._thumbnails[image]
        try:
            return (self.folder / self.find(image).id / "thumbnail.png").read_bytes()
        except FileNotFoundError:
            raise UnknownError("image", "upload the picture again") from None

    def __len__(self) -> int:
        return len(self._known)

    def sweep(self, used: Collection[str], now: float | None = None) -> list[str]:
        """Remove uploads that no picture uses, after their time.

        Args:
            used: Those that pictures use.
            now: Seconds since the epoch.

        Returns:
            Those that are gone.
        """
        oldest = (time.time() if now is None else now) - 3600 * self._limits.keep_hours
        with self._lock:
            gone = [one.id for one in self._known.values() if one.created < oldest and one.id not in used]
            for name in gone:
                del self._known[name]
            known = set(self._known)
        for name in gone:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for place in self.folder.iterdir():  # what never came in whole
            with contextlib.suppress(OSError):
                if place.name not in known and place.stat().st_mtime < min(oldest, time.time() - 3600):
                    shutil.rmtree(place, ignore_errors=True)
        return gone


def plain_name(name: str) -> str:
    """A file's name from outside as it may be shown and written: no folders, nothing that a shell takes ill."""
    last = re.split(r"[/\\]", name)[-1]
    cleaned = re.sub(r"[^\w.-]+", "_", last).strip("._-")[-80:]
    return cleaned or "picture"


def _thumbnail(file: Path) -> bytes:
    """A picture of at most `THUMBNAIL` pixels as PNG."""
    picture = read_image(file, name="file", needed=(THUMBNAIL, THUMBNAIL))
    pixels, alpha = picture.pixels, picture.alpha
    size = target_size(picture.height, picture.width, min(THUMBNAIL, max(picture.height, picture.width)))
    if size != (picture.height, picture.width):
        pixels = resize(pixels, size)
        alpha = None if alpha is None else resize(alpha, size)
    out = io.BytesIO()
    Image.fromarray(to_samples(pixels.clamp(0, 1), alpha)).save(out, "PNG")
    return out.getvalue()
