"""What a client asks for, in the short words of the command line."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from nst_lightning.objective.regions import MOST

ID = r"^[0-9a-f]{16}$"  # of pictures and uploads
IMAGE = r"^(?:[0-9a-f]{16}|demo:[a-z]{1,16})$"  # of an upload, or the name of a picture that the package carries

ImageId = Annotated[str, Field(pattern=IMAGE)]
_Factor = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=1_000_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AskedStyle(_Strict):
    """One style of a blend."""

    image: ImageId = Field(description="an upload, or demo:style")
    weight: float = Field(1.0, ge=0, le=1e6, allow_inf_nan=False, description="share in the blend")
    mask: ImageId | None = Field(None, description="an upload, white where this style is to be")


class Asked(_Strict):
    """A picture that is asked for."""

    content: ImageId | None = Field(None, description="an upload, or demo:content; null for a texture")
    styles: list[AskedStyle] = Field(min_length=1, max_length=8)
    preset: str = Field("fast", pattern=r"^[a-z0-9_]{1,40}$")
    size: int | None = Field(None, ge=16, description="long side of the result in pixels; null: the preset's")
    strength: _Factor = Field(1.0, description="style against content, 1 is neutral")
    likeness: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="how much is recognised, 0.5 is neutral; null: the preset's"
    )
    stroke_size: _Factor = Field(1.0, description="2: strokes twice as large")
    keep_colors: bool = Field(False, description="whether the result has the content's colours")
    protect_faces: bool = Field(False, description="whether faces in the content stay clear; needs the extra faces")
    regions: int | None = Field(
        None, ge=0, le=MOST, description="how many parts take the style of what is most like them; null: the preset's"
    )
    evaluations: _Count | None = Field(None, description="how many evaluations; null: the preset's")
    seconds: float | None = Field(
        None, gt=0, le=86400, allow_inf_nan=False, description="make the best picture in about that time"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    content_mask: ImageId | None = Field(None, description="an upload, white where the content is to be kept")
    options: dict[str, Any] = Field(default_factory=dict, description="options of nst fit by their dotted names")

    @property
    def images(self) -> list[str]:
        """All pictures that are read."""
        given = [
            self.content,
            self.content_mask,
            *(item for style in self.styles for item in (style.image, style.mask)),
        ]
        return [image for image in given if image is not None]


class More(_Strict):
    """How a picture goes on."""

    evaluations: _Count | None = Field(None, description="how many more; null: those that are left")
    strength: _Factor | None = Field(None, description="from now on; null: as it was")
