"""One picture that tells the run: content, style and result above a strip of the image as it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nst_lightning.callbacks.announce import planned_evaluations
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import UserError
from nst_lightning.files.lenient import only_the_file
from nst_lightning.images.io import write_image
from nst_lightning.images.resize import resize

MARGIN = 12
CAPTION = 22


class Figure(Callback):
    """Write ``figure.png`` at the end of the run.

    Args:
        width: Width of the figure in pixels.
        frames: Pictures in the strip; they lie at evaluations in geometric progression, as early ones change most.
    """

    def __init__(self, width: int = 1600, frames: int = 6) -> None:
        if width < 256 or frames < 2:
            raise UserError(f"figure: width must be at least 256 and frames at least 2, got {width} and {frames}")
        self.width = width
        self.frames = frames
        self._strip: list[tuple[int, Tensor]] = []
        self._steps: set[int] = set()

    def setup(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Forget an earlier run, which may have been cut short."""
        self._strip = []

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Choose the evaluations to show, and add the start to the strip."""
        total = planned_evaluations(trainer, pl_module)
        self._steps = {max(1, round(total ** (k / (self.frames - 1)))) for k in range(1, self.frames)} | {total}
        if not self._strip:  # else those of the run that this one continues
            self._add(trainer, pl_module)

    def _add(self, trainer: Trainer, module: StyleTransfer) -> None:
        height, width = module.image.shape[-2:]
        across = min(width, (self.width - MARGIN * (self.frames + 1)) // self.frames)
        size = (max(1, round(height * across / width)), across)
        with module.showing_result():
            small = resize(module.image.detach().float(), size).clamp(0, 1).cpu()
        seen = trainer.datamodule.finished(small)  # type: ignore[attr-defined]
        self._strip.append((trainer.global_step, (seen * 255).round().to(torch.uint8)))

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Add a small copy where one is to be shown."""
        if trainer.global_step in self._steps:
            self._add(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Write the figure."""
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        final = pl_module.final_picture()
        scale = min(1.0, self.width / max(final.shape[-2:]))
        images = data.pictures(scale)
        height, width = images.content.shape[-2:]
        numbers = [f" {i}" for i in range(1, len(images.styles) + 1)] if len(images.styles) > 1 else [""]
        top = [("content", images.content)] if data.content_path is not None else []
        top += [(f"style{number}", style) for number, (style, _) in zip(numbers, images.styles, strict=True)]
        top.append((f"result after {trainer.global_step} evaluations", resize(final, (height, width)).clamp(0, 1)))
        strip = [("start" if step == 0 else f"{step}", picture / 255) for step, picture in self.strip]
        figure = torch.cat([_side_by_side(top, self.width), _side_by_side(strip, self.width)], dim=-2)
        path = Path(trainer.default_root_dir) / "figure.png"
        with only_the_file(path):
            write_image(path, figure)

    @property
    def strip(self) -> list[tuple[int, Tensor]]:
        """Evaluations and the picture after them, (1, 3, h, w) in bytes, of the latest run."""
        return self._strip[-self.frames :]

    def state_dict(self) -> dict[str, Any]:
        """The strip so far, so that the figure of a continued run shows its beginning, too."""
        return {"strip": self.strip}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the strip."""
        self._strip = list(state_dict["strip"])


def _side_by_side(pictures: list[tuple[str, Tensor]], width: int) -> Tensor:
    """Lay captioned pictures of one height side by side: (1, 3, h, width) in [0, 1], on white."""
    ratios = [picture.shape[-1] / picture.shape[-2] for _, picture in pictures]
    height = int((width - MARGIN * (len(pictures) + 1)) / sum(ratios))
    canvas = torch.ones(1, 3, height + MARGIN + CAPTION, width)
    left = MARGIN
    for (caption, picture), ratio in zip(pictures, ratios, strict=True):
        across = int(height * ratio)
        canvas[..., MARGIN : MARGIN + height, left : left + across] = resize(picture, (height, across)).clamp(0, 1)
        canvas[..., MARGIN + height :, left : left + across] = _text(caption, across)
        left += across + MARGIN
    return canvas


def _text(caption: str, width: int) -> Tensor:
    canvas = Image.new("L", (width, CAPTION), 255)
    ImageDraw.Draw(canvas).text((0, 3), caption, fill=40, font=ImageFont.load_default(13))
    return torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8).view(1, 1, CAPTION, width) / 255
