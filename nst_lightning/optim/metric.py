"""Metrics for the image: initial inverse Hessians that are diagonal in spatial frequency.

Style transfer is ill-conditioned in pixels: low spatial frequencies move slowly. Measuring changes of the image in a
space in which a frequency f is worth f^a lets L-BFGS start from an inverse Hessian of H0 = F* diag(f^-2a) F, while the
image itself stays the parameter. How curvature really depends on frequency differs between pictures and changes along
the way (the finest frequencies, which the network hardly sees, are flat again), so the optimiser may correct H0 by a
factor for each ring of frequencies, estimated from its own steps. It differs between brightness and colour, too: a
network sees edges of brightness more sharply than those between colours of one brightness. So an image's three channels
may be turned to opponent colours first, an orthogonal map, which have rings of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Opponent colours (Ohta, Kanade and Sakai 1980) as an orthonormal basis: brightness, red to blue, both to green.
_OPPONENT = ((3**-0.5,) * 3, (2**-0.5, 0.0, -(2**-0.5)), (6**-0.5, -2 * 6**-0.5, 6**-0.5))


def opponent(colors: Tensor, axis: int) -> Tensor:
    """Brightness (axis 0) or an opponent colour (1 or 2) of R, G and B, (3, n) -> (n,).

    Of greys both colours are zero to the last bit, so a grey image under grey gradients stays grey.
    """
    red, green, blue = colors
    if axis == 0:
        mixed: Tensor = (red + green).add_(blue)
    elif axis == 1:
        mixed = red - blue
    else:
        mixed = (red - green).add_(blue - green)
    return mixed.mul_(_OPPONENT[axis][0])


def add_opponent(colors: Tensor, axis: int, values: Tensor) -> None:
    """The transpose of `opponent`: adds values (n,) along an axis to R, G and B, (3, n)."""
    for color, part in zip(colors, _OPPONENT[axis], strict=True):
        if part:
            color.add_(values, alpha=part)


class SpectralMetric:
    """H0 = F* diag(f^-2a) F on images, with f in cycles per pixel, clamped below at one period of the longer side.

    `forward` maps a gradient g to H0^½ g, in coordinates in which inner products are plain sums: real and imaginary
    parts of the half spectrum, with √2 on every column that stands for a conjugate pair. `backward` is its transpose,
    so ``backward(forward(g)) = H0 g`` and inner products of forward images are ``gᵀ H0 g``. Coordinates are sorted by
    axis of colour and then by ring: rings have equal width in log f, and each is a slice. Channels are transformed one
    by one, so that tables and whatever lies between are of the size of one channel.

    The shape is the image's, (..., H, W); an exponent a of 0 is the identity; tables are float32 or float64. With
    `opponent_colors` images of three channels, (..., 3, H, W), have three axes of colour, else all channels are one.
    There are `numel` coordinates. Of each ring of an axis, from low to high frequency, `sizes` has their number and
    `centres` the mean natural logarithm of its frequencies; rings without a frequency are left out.
    """

    def __init__(
        self,
        shape: torch.Size,
        exponent: float,
        device: torch.device,
        dtype: torch.dtype,
        rings: int = 1,
        opponent_colors: bool = False,
    ) -> None:
        self.shape = shape
        self._channels = shape[:-2].numel()
        self.axes = 3 if opponent_colors and shape[-3:-2] == (3,) else 1
        self.numel = shape[:-1].numel() * (shape[-1] // 2 + 1) * 2
        height, width = shape[-2:]
        vertical = torch.fft.fftfreq(height, device=device, dtype=dtype)
        horizontal = torch.fft.rfftfreq(width, device=device, dtype=dtype)
        frequency = (vertical[:, None].square() + horizontal.square()).sqrt_().clamp_(min=1 / max(height, width))
        self._pairs = torch.full_like(horizontal, 2.0)
        self._pairs[0] = 1.0
        if width % 2 == 0:
            self._pairs[-1] = 1.0
        logarithm = np.log(frequency.cpu().numpy().astype(np.float64)).ravel()  # every device draws the same borders
        position = (logarithm - logarithm.min()) * (rings / max(float(np.ptp(logarithm)), 1e-12))
        ring = np.minimum(position, rings - 1).astype(np.int32)
        del position
        counts, sums = np.bincount(ring), np.bincount(ring, weights=logarithm)
        del logarithm
        self.sizes = [2 * self._channels // self.axes * int(count) for count in counts if count]
        self.centres = [float(total / count) for total, count in zip(sums, counts, strict=True) if count]
        self._order = self._inverse = None
        if len(self.sizes) > 1:
            order = np.argsort(ring, kind="stable").astype(np.int32)
            self._order = torch.from_numpy(order).to(device)
            self._inverse = torch.empty_like(self._order)
            self._inverse[self._order.long()] = torch.arange(len(order), dtype=torch.int32, device=device)
        self._to = (frequency.pow_(-exponent) * self._pairs.sqrt())[..., None]

    def forward(self, gradient: Tensor) -> Tensor:
        """H0^½ g: (n,) pixels -> (m,) coordinates, with m a little above n."""
        result = gradient.new_empty(self._layout)
        for image, channels in enumerate(self._images(gradient).unbind()):
            for place in range(len(channels)):
                channel = channels[place] if self.axes == 1 else opponent(channels, place)
                spectrum = torch.fft.rfft2(channel.view(self.shape[-2:]), norm="ortho")
                weighted = torch.view_as_real(spectrum).mul_(self._to).view(-1, 2)
                values = weighted if self._order is None else weighted.index_select(0, self._order)
                self._at(result, image, place).copy_(values)
        return result.view(-1)

    def backward(self, coordinates: Tensor) -> Tensor:
        """The transpose of `forward`: (m,) coordinates -> (n,) pixels."""
        half = (self.shape[-2], self.shape[-1] // 2 + 1, 2)
        layout = coordinates.view(self._layout)
        pixels = coordinates.new_empty if self.axes == 1 else coordinates.new_zeros
        result = pixels(self._channels * self.shape[-2:].numel())
        for image, channels in enumerate(self._images(result).unbind()):
            for place in range(len(channels)):
                values = self._at(layout, image, place)
                spectrum = values.clone() if self._inverse is None else values.index_select(0, self._inverse)
                spectrum = spectrum.view(half).mul_(self._to).div_(self._pairs[:, None])
                channel = torch.fft.irfft2(torch.view_as_complex(spectrum), s=self.shape[-2:], norm="ortho").view(-1)
                if self.axes == 1:
                    channels[place] = channel
                else:
                    add_opponent(channels, place, channel)
        return result

    @property
    def _layout(self) -> tuple[int, int, int, int]:
        """Of coordinates: axes of colour, frequencies, channels of an axis, real and imaginary part."""
        images = self._channels // self.axes
        return self.axes, self.numel // (2 * self._channels), images, 2

    def _images(self, pixels: Tensor) -> Tensor:
        """(n,) pixels as (images, channels of one, pixels of a channel): three channels each, or all in one image."""
        return pixels.view(-1, 3 if self.axes == 3 else self._channels, self.shape[-2:].numel())

    def _at(self, layout: Tensor, image: int, place: int) -> Tensor:
        """Coordinates (frequencies, 2) of an axis of an image, or of a channel where all are one axis."""
        return layout[place, :, image] if self.axes == 3 else layout[0, :, place]


class Coordinates:
    """Parameters as one vector: in the coordinates of a `SpectralMetric` for each, or their values laid end to end.

    Their sizes are read now. The exponent is the metric's, None for the values themselves; 1 makes one ring of all.
    There are `numel` coordinates; `ring_sizes` has those of each ring, a list for each axis of each parameter.
    """

    def __init__(
        self, parameters: Sequence[Tensor], exponent: float | None, rings: int, opponent_colors: bool = False
    ) -> None:
        self._lengths = [p.numel() for p in parameters]
        self.metrics: list[SpectralMetric] | None = None
        if exponent is not None:
            kind = (exponent, parameters[0].device, parameters[0].dtype, rings, opponent_colors)
            self.metrics = [SpectralMetric(p.shape, *kind) for p in parameters]
        self.numel = sum(metric.numel for metric in self.metrics) if self.metrics else sum(self._lengths)
        whole = self.metrics is None or rings == 1
        self.ring_sizes = [[self.numel]] if whole else [m.sizes for m in self.metrics or () for _ in range(m.axes)]

    def forward(self, gradient: Tensor) -> Tensor:
        """Bring a gradient (n,) into coordinates in which inner products are plain sums; always a new vector."""
        if self.metrics is None:
            return gradient.clone()
        pieces = torch.split(gradient, self._lengths)
        return joined([metric.forward(piece) for metric, piece in zip(self.metrics, pieces, strict=True)])

    def backward(self, coordinates: Tensor) -> Tensor:
        """The transpose of `forward`; always a new vector."""
        if self.metrics is None:
            return coordinates.clone()
        pieces = torch.split(coordinates, [metric.numel for metric in self.metrics])
        return joined([metric.backward(piece) for metric, piece in zip(self.metrics, pieces, strict=True)])


def joined(vectors: list[Tensor]) -> Tensor:
    """One vector of several; a single one as it is."""
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors)
