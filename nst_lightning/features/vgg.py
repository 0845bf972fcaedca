"""VGG-19 (Simonyan and Zisserman, 2015) as a frozen extractor with layers under their names in the literature."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nst_lightning.errors import notice
from nst_lightning.features.convolutions import CONVOLUTION_NAMES, Weights, in_units
from nst_lightning.features.extractor import Extractor, Walk, channel_means, unit
from nst_lightning.features.topology import Algorithm, Padding, Pooling, VGGNetwork, check_choice
from nst_lightning.features.weights import Layout, load_vgg19_weights, read_vgg19_weights

Units = Literal["stored", "normalised"]
Expected = Literal["any", "caffe", "torchvision"]

CAFFE_UNIT = 255 * 0.225  # 0..255 pixels in standard deviations of ImageNet's channels


class VGG19(VGGNetwork):
    """VGG-19's convolutions, only as deep as the deepest layer asked for.

    Layers are ``conv1_1`` ... ``conv5_4`` (before the rectifier) and ``relu1_1`` ... ``relu5_4``; with max pooling,
    zero padding and direct convolution they equal those of torchvision's ``vgg19().features``, in float32 bitwise.

    Args:
        weights: A .pth, .pt or .safetensors file; by default NST_VGG19_WEIGHTS, torch hub's cache or a download.
        layout: How the stored network wants its input: torchvision's RGB, Caffe's BGR 0..255, or recognised.
        sha256: Expected SHA-256 of the weights file, or its first digits.
        pooling: Max as in the trained network, average as Gatys et al. advise, or l2 (root mean square).
        rescale_pooling: For average and l2: multiply by the factor that keeps magnitudes at those of max pooling.
        padding: What the first layer sees beyond the border: zeros (the mean colour) or the nearest pixel.
        units: Scale of the activations: stored as the file has them, or normalised, which brings those of the original
            Caffe network (fed with pixels of 0..255) down to what pixels in [0, 1] give in torchvision's.
        unit_activations: Rescale the network so that each channel's mean activation over content and style is 1.
        expected: The set of weights that published numbers belong to; another one gives a warning.
        convolution: Algorithm of wide layers: direct; winograd, with fewer products and more rounding (2e-6 of a
            layer's values in float32, 0.006 in bfloat16); or auto, which is winograd on a CPU (a third less time for
            an evaluation) and direct elsewhere and in float64.
    """

    def __init__(
        self,
        weights: str | None = None,
        layout: Layout = "auto",
        sha256: str | None = None,
        pooling: Pooling = "max",
        rescale_pooling: bool = False,
        padding: Padding = "zeros",
        units: Units = "stored",
        unit_activations: bool = False,
        expected: Expected = "any",
        convolution: Algorithm = "auto",
    ) -> None:
        check_choice("units", units, Units)
        check_choice("layout", layout, Layout)
        check_choice("expected", expected, Expected)
        loaded = load_vgg19_weights(weights, layout=layout, sha256=sha256)
        scale = CAFFE_UNIT if units == "normalised" and loaded.family == "caffe" else 1.0
        again = partial(_read_again, loaded.path, layout, loaded.sha256, scale)
        super().__init__(in_units(loaded.convolutions, scale), pooling, rescale_pooling, padding, convolution, again)
        self.unit_activations = unit_activations
        self.origin, self.family = loaded.origin, loaded.family
        if expected not in {"any", loaded.family}:
            notice(f"the published numbers belong to the {expected} weights, these are: {self.origin}")

    @torch.no_grad()
    def rescaled(self, images: Sequence[Tensor], walk: Walk) -> Extractor:
        """A copy whose rectified channels each have a mean of 1 over these images; see `Extractor.rescaled`.

        Gatys, Ecker and Bethge (CVPR 2016), section 2: rectifiers and pooling commute with positive factors, so the
        scaled network computes the same features up to one factor a channel. Departure: a channel that is
        nearly silent on these few images (mean below 10 % of its layer's) is treated as having that mean, lest noise is
        blown up.
        """
        names = [name.replace("conv", "relu") for name in CONVOLUTION_NAMES[: len(self.convolutions)]]
        means = channel_means(images, walk, names)
        scaled = copy.deepcopy(self)
        scaled.unit_activations = False
        scaled._again = partial(_with_unit_means, self._again, [unit(means[name]).cpu() for name in names])
        scaled._restore(self._convolution(0).weight.dtype)
        return scaled


def _with_unit_means(again: Callable[[], Iterable[Weights]], means: Sequence[Tensor]) -> list[Weights]:
    """Convolutions with their results divided by means; those of deeper layers return what they did."""
    scaled, previous = [], torch.ones(3)
    for index, (weight, bias, *_) in enumerate(again()):
        mean = means[index] if index < len(means) else torch.ones_like(bias)
        scaled.append(Weights(weight * previous[None, :, None, None] / mean[:, None, None, None], bias / mean))
        previous = mean
    return scaled


def _read_again(path: Path, layout: Layout, sha256: str, scale: float) -> list[Weights]:
    return in_units(read_vgg19_weights(path, layout=layout, sha256=sha256).convolutions, scale)
