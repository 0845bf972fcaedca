"""One page that shows a run: pictures, losses, settings, times, and how to make it again."""

from __future__ import annotations

import base64
import io
import platform
import shlex
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, Trainer
from PIL import Image
from torch import Tensor

from nst_lightning import __version__
from nst_lightning.callbacks.curves import Table, draw, read_table
from nst_lightning.callbacks.figure import Figure
from nst_lightning.callbacks.frames import as_bytes
from nst_lightning.callbacks.tints import tinted
from nst_lightning.data.stage_images import StageImages
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import UserError, notice
from nst_lightning.files.atomic import replacing
from nst_lightning.files.folders import make_folder
from nst_lightning.hardware.accelerator import describe
from nst_lightning.images.resize import resize, target_size
from nst_lightning.planning.duration import in_words
from nst_lightning.runs.folder import CONFIGURATION

NAME = "report.html"
_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_STYLE, _STRIP = 520, 260  # long sides in pixels
_QUALITY = 88  # of JPEG
_PACKAGES = ("torch", "lightning")


class Report(Callback):
    """Write ``report.html`` in the run folder when the run ends or is stopped.

    The page needs nothing but itself: pictures are in it, and it loads nothing. It has content, styles and result, with
    an edge to drag between before and after; regions in colours, if any were found; the strip of `Figure` and the
    curves of ``metrics.csv``, where the trainer has these callbacks; sizes, times, device and versions; and for a run
    by the command the settings and the command that repeats it. Paths are in it as they were typed.

    Args:
        settings: The run's configuration in YAML.
        longest: Long side of the result in it, in pixels.

    Raises:
        UserError: `longest` is too small.

    Example:
        >>> Report(longest=800).longest
        800
    """

    def __init__(self, settings: str | None = None, longest: int = 1200) -> None:
        if longest < 16:
            raise UserError(f"report.longest: must be at least 16 px, got {longest}; 1200 is the default")
        self.settings, self.longest = settings, longest
        self._begun: float | None = None  # while a run has begun and its report is not written
        self._date = datetime.now().astimezone()

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Note the time."""
        self._begun, self._date = time.perf_counter(), datetime.now().astimezone()

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Write the page."""
        made, total = trainer.global_step, pl_module.total_evaluations
        self._finish(trainer, pl_module, "" if made >= total else f"stopped after {made} of {total} evaluations")

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Write the page of what there is, if there is anything."""
        reason = " ".join(str(exception).split())[:300] or type(exception).__name__
        of = f"{trainer.global_step} of {pl_module.total_evaluations} evaluations"
        self._finish(trainer, pl_module, f"ended after {of}: {reason}")

    def _finish(self, trainer: Trainer, module: StyleTransfer, how: str) -> None:
        begun, self._begun = self._begun, None
        if begun is None or not trainer.is_global_zero or not trainer.global_step:
            return
        path = Path(trainer.default_root_dir) / NAME
        try:
            page = self._page(trainer, module, how, time.perf_counter() - begun)
            make_folder(path.parent)
            with replacing(path) as file:
                file.write(page.encode())
        except Exception as error:  # whatever a page is made of: it must not cost the run
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            notice(f"could not write {path}: {reason}; the run goes on", stacklevel=1)

    def _page(self, trainer: Trainer, module: StyleTransfer, how: str, seconds: float) -> str:
        from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - both take a tenth of a second, at the end
        from markupsafe import Markup  # noqa: PLC0415

        data = trainer.datamodule  # type: ignore[attr-defined]
        table = read_table(Path(trainer.default_root_dir) / "metrics.csv")
        names = [Path(data.content_path).name] if data.content_path is not None else []
        names += [Path(style.path).name for style in data.styles]
        figures = [callback for callback in trainer.callbacks if isinstance(callback, Figure)]  # type: ignore[attr-defined]
        strip = figures[0].strip if figures else []
        environment = Environment(autoescape=True, undefined=StrictUndefined)
        return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
            title=" + ".join(names),
            state=f"{self._date:%Y-%m-%d %H:%M}{f', {how}' if how else ''}",
            **_pictures(module, data, self.longest),
            strip=[_Frame("start" if step == 0 else str(step), _uri(frame / 255, _STRIP)) for step, frame in strip],
            charts=[(title, Markup(svg)) for title, svg in _charts(table)],
            facts=_facts(trainer, module, table, seconds),
            stages=[_stage(module, data, index) for index in range(len(module.stages))],
            command=self._command(trainer),
            settings=self.settings,
        )

    def _command(self, trainer: Trainer) -> str | None:
        """The command that repeats the run."""
        if not self.settings:
            return None
        return shlex.join(["nst", "fit", "--config", str(Path(trainer.default_root_dir) / CONFIGURATION)])


class _Frame(NamedTuple):
    caption: str
    picture: str


class _Style(NamedTuple):
    name: str
    weight: str
    picture: str


class _Stage(NamedTuple):
    evaluations: int
    image: str
    network: str


def _pictures(module: StyleTransfer, data: Any, longest: int) -> dict[str, Any]:
    """The pictures of the page."""
    height, width = data.stage_size()
    size = target_size(height, width, min(longest, max(height, width)))
    images = data.pictures(size[1] / width)
    styles = [
        _Style(Path(style.path).name, f"{style.weight:g}", _uri(pixels, _STYLE))
        for style, (pixels, _) in zip(data.styles, images.styles, strict=True)
    ]
    content = None if data.content_path is None else _uri(images.content, longest)
    return {
        "content": content, "result": _uri(module.picture(longest), longest), "styles": styles, "height": size[0],
        "width": size[1], "regions": _regions(data, images),
    }  # fmt: skip


def _regions(data: Any, images: StageImages) -> list[_Frame]:
    """Content and styles in the colours of the regions that were found."""
    found = data.regions
    if found is None:
        return []
    frames = [_Frame("content", _uri(tinted(images.content, found.content), _STYLE))]
    for style, (pixels, _), matched in zip(data.styles, images.styles, found.styles, strict=True):
        frames.append(_Frame(Path(style.path).name, _uri(tinted(pixels, matched), _STYLE)))
    return frames


def _charts(table: Table | None) -> list[tuple[str, str]]:
    """Titles and curves."""
    if table is None:
        return []
    parts = [name for name in table.losses if "." in name]
    groups = [name for name in table.losses if "." not in name]
    drawn = [("Losses over evaluations", draw(table, groups)), ("Losses by term and layer", draw(table, parts))]
    return [(title, svg) for title, svg in drawn if svg]


def _facts(trainer: Trainer, module: StyleTransfer, table: Table | None, seconds: float) -> list[tuple[str, str]]:
    hardware = describe(module.device)
    made = trainer.global_step
    seconds = max(table.seconds[-1] if table is not None else seconds, 1e-9)
    height, width = trainer.datamodule.stage_size()  # type: ignore[attr-defined]
    losses = {} if table is None else {name: losses[-1] for name, losses in table.losses.items() if "." not in name}
    return [
        ("picture", f"{width} x {height} px"),
        ("evaluations", f"{made} of {module.total_evaluations}"),
        ("time", f"{in_words(seconds)}, {made / seconds:.3g} evaluations a second"),
        *([("last losses", ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items()))] if losses else []),
        ("device", f"{hardware.accelerator} ({hardware.name}), precision {trainer.precision}"),
        ("processes", str(trainer.world_size)),
        ("folder", str(trainer.default_root_dir)),
        ("versions", ", ".join([f"nst_lightning {__version__}", *(f"{name} {version(name)}" for name in _PACKAGES)])),
        ("system", f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"),
    ]


def _stage(module: StyleTransfer, data: Any, index: int) -> _Stage:
    stage = module.stages[index]
    height, width = data.stage_size(stage.scale)
    tile = module.plans[index].tile
    image = f"{width} x {height} px{f' in tiles of {tile} px' if tile is not None else ''}"
    return _Stage(stage.evaluations, image, module.extractor_of(stage).origin)


def _uri(picture: Tensor, longest: int) -> str:
    """A picture, (1, 3, h, w) in [0, 1], in the text of a page; scaled down if need be."""
    height, width = picture.shape[-2:]
    if max(height, width) > longest:
        picture = resize(picture, target_size(height, width, longest))
    file = io.BytesIO()
    Image.fromarray(as_bytes(picture)).save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
