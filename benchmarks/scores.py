"""What a picture is judged by that no objective here looks at.

Fixed before any preset was tuned. Each is 1 at best, but for the share out of range, which is 0 at best:

* `unseen`: share of the way from the content's to the style's Gram matrices at layers that no term takes (relu1_2, 2_2,
  3_3, 4_3; VGG-19 in float32 judges).
* `patches`: the same way by the sliced Wasserstein distance of 8x8 patches of pixels, at three scales.
* `structure`: correlation of the self-similarity of relu4_3 (cosines of all pairs of cells) with the content's (after
  Kolkin, Salavon and Shakhnarovich 2019, STROTSS): what is alike in the photograph is alike in the picture.
* `spectrum`: 1 less the mean distance of the logarithms (base 10) of the radial power spectra of picture and style.
* `clipped`: share of samples that are black or white in the picture, beyond those in content and style.

Two more say how far a picture has come in what presets do optimise, as the whole network in float32 sees it; they count
where builds of one preset are compared, and not in the mean:

* `style`: as `unseen`, at the layers that terms take by default (relu1_1, 2_1, 3_1, 4_1, 5_1).
* `content`: squared distance from the content's features at relu4_2 over their sum of squares, 0 at best.

And two of `nst judge` say what is seen at once and moves none of the others: `hatching` and `borders`, both 1 at best
(`nst_lightning/judging/`); they do not count in the mean either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.features import Extractor
from nst_lightning.images.recolor import luma
from nst_lightning.judging.borders import border_step
from nst_lightning.judging.clipping import clipped
from nst_lightning.judging.hatching import hatching
from nst_lightning.judging.style import LAYERS as UNSEEN
from nst_lightning.judging.style import gram_closed
from nst_lightning.losses.content import content_distance
from nst_lightning.losses.term import STYLE_LAYERS

CONTENT_LAYER = "relu4_2"
PATCH, SCALES, DIRECTIONS, CELLS = 8, (1, 2, 4), 128, 1024


@dataclass(frozen=True)
class Scores:
    """See the module."""

    unseen: float
    patches: float
    structure: float
    spectrum: float
    clipped: float
    style: float
    content: float
    hatching: float
    borders: float

    @property
    def quality(self) -> float:
        """One number to compare by: the mean of the four, less what is clipped."""
        return (self.unseen + self.patches + self.structure + self.spectrum) / 4 - self.clipped

    def as_dict(self) -> dict[str, float]:
        """All numbers."""
        return {**asdict(self), "quality": self.quality}


@torch.no_grad()
def judge(network: Extractor, picture: Tensor, content: Tensor, style: Tensor) -> Scores:
    """Score a picture.

    Args:
        network: VGG-19 in float32.
        picture: (1, 3, H, W), RGB in [0, 1].
        content: The same shape.
        style: (1, 3, h, w).
    """
    layers = [*UNSEEN, *STYLE_LAYERS, CONTENT_LAYER]
    ours, start, goal = (network(image, layers) for image in (picture, content, style))

    def closed(layers: Sequence[str]) -> float:
        return sum(gram_closed(ours[layer], start[layer], goal[layer]) for layer in layers) / len(layers)

    before = patch_distance(content, style)
    return Scores(
        unseen=closed(UNSEEN),
        patches=1 - patch_distance(picture, style) / max(before, 1e-12),
        structure=correlation(self_similarity(ours["relu4_3"]), self_similarity(start["relu4_3"])),
        spectrum=max(0.0, 1 - spectrum_distance(picture, style)),
        clipped=max(0.0, clipped(picture) - max(clipped(content), clipped(style))),
        style=closed(STYLE_LAYERS),
        content=float(content_distance(ours[CONTENT_LAYER], start[CONTENT_LAYER], "balanced")),
        hatching=hatching(picture, content, style),
        borders=border_step(picture),
    )


def patch_distance(one: Tensor, other: Tensor, seed: int = 0) -> float:
    """Sliced Wasserstein distance of patches, averaged over scales; the same directions for all pictures."""
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for scale in SCALES:
        directions = torch.randn(DIRECTIONS, 3, PATCH, PATCH, generator=generator)
        directions /= directions.flatten(1).norm(dim=1)[:, None, None, None]
        sides = [F.conv2d(F.avg_pool2d(image, scale), directions).flatten(2)[0] for image in (one, other)]
        levels = torch.linspace(0, 1, 512)
        quantiles = [torch.quantile(side[:, :: math.ceil(side.shape[1] / 100_000)], levels, dim=1) for side in sides]
        total += float((quantiles[0] - quantiles[1]).square().mean().sqrt())
    return total / len(SCALES)


def self_similarity(features: Tensor) -> Tensor:
    """Cosines of all pairs of cells on a grid of at most 1024."""
    step = math.ceil(math.sqrt(features.shape[-2] * features.shape[-1] / CELLS))
    cells = F.normalize(features[0, :, ::step, ::step].flatten(1), dim=0)
    return cells.T @ cells


def correlation(one: Tensor, other: Tensor) -> float:
    """Of the entries below the diagonal."""
    below = torch.ones_like(one).tril(-1).bool()
    return float(torch.corrcoef(torch.stack([one[below], other[below]]))[0, 1])


def radial_spectrum(picture: Tensor, bins: int = 32) -> Tensor:
    """Logarithm of the mean power of luma in rings of frequency, in cycles per pixel up to a half: (bins,)."""
    brightness = luma(picture)[0, 0]
    height, width = brightness.shape
    window = torch.hann_window(height, periodic=False)[:, None] * torch.hann_window(width, periodic=False)
    power = torch.fft.rfft2((brightness - brightness.mean()) * window).abs().square() / window.square().sum()
    radius = (torch.fft.fftfreq(height)[:, None].square() + torch.fft.rfftfreq(width).square()).sqrt()
    # Rings of equal width in the logarithm, from 8 cycles per 256 pixels on: what is coarser is the content's.
    edges = torch.logspace(math.log10(1 / 32), math.log10(0.5), bins + 1)
    ring = torch.bucketize(radius, edges) - 1
    inside = (ring >= 0) & (ring < bins)
    sums = torch.zeros(bins).index_add_(0, ring[inside], power[inside])
    counts = torch.zeros(bins).index_add_(0, ring[inside], torch.ones_like(power[inside]))
    return (sums / counts.clamp(min=1) + 1e-12).log10()


def spectrum_distance(one: Tensor, other: Tensor) -> float:
    """Mean distance of two radial spectra, in powers of ten."""
    return float((radial_spectrum(one) - radial_spectrum(other)).abs().mean())


def peak_signal_to_noise(one: Tensor, other: Tensor) -> float:
    """In decibels, for samples in [0, 1]: of the identity test, where style and content are one picture."""
    return -10 * math.log10(max(float((one - other).square().mean()), 1e-12))
