"""Metrics for the image: initial inverse Hessians that are diagonal in spatial frequency.

Style transfer is ill-conditioned in pixels: low spatial frequencies move slowly. Measuring changes of the image in a
space in which a frequency f is worth f^a lets L-BFGS start from an inverse Hessian of H0 = F* diag(f^-2a) F, while the
image itself stays the parameter. How curvature really depends on frequency differs between pictures and changes along
the way (the finest frequencies, which the network hardly sees, are flat again), so the optimiser may correct H0 by a
factor for each ring of frequencies, estimated from its own steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class SpectralMetric:
    """H0 = F* diag(f^-2a) F on images, with f in cycles per pixel, clamped below at one period of the longer side.

    `forward` maps a gradient g to H0^½ g, in coordinates in which inner products are plain sums: real and imaginary
    parts of the half spectrum, with √2 on every column that stands for a conjugate pair. `backward` is its transpose,
    so ``backward(forward(g)) = H0 g`` and inner products of forward images are ``gᵀ H0 g``. Coordinates are sorted by
    ring: rings have equal width in log f, and each is a slice. Channels are transformed one by one, so that tables and
    whatever lies between are of the size of one channel.

    The shape is the image's, (..., H, W); an exponent a of 0 is the identity; tables are float32 or float64.
    There are `numel` coordinates. Of each ring, from low to high frequency, `sizes` has their number and `centres` the
    mean natural logarithm of its frequencies; rings without a frequency are left out.
    """

    def __init__(
        self, shape: torch.Size, exponent: float, device: torch.device, dtype: torch.dtype, rings: int = 1
    ) -> None:
        self.shape = shape
        self._channels = shape[:-2].numel()
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
        self.sizes = [2 * self._channels * int(count) for count in counts if count]
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
        channels = gradient.view(self._channels, *self.shape[-2:])
        result = gradient.new_empty(self.numel // (2 * self._channels), self._channels, 2)
        for index, channel in enumerate(channels):
            weighted = torch.view_as_real(torch.fft.rfft2(channel, norm="ortho")).mul_(self._to).view(-1, 2)
            result[:, index] = weighted if self._order is None else weighted.index_select(0, self._order)
        return result.view(-1)

    def backward(self, coordinates: Tensor) -> Tensor:
        """The transpose of `forward`: (m,) coordinates -> (n,) pixels."""
        half = (self.shape[-2], self.shape[-1] // 2 + 1, 2)
        pixels = coordinates.new_empty(self._channels, *self.shape[-2:])
        for index, values in enumerate(coordinates.view(-1, self._channels, 2).unbind(1)):
            spectrum = values.clone() if self._inverse is None else values.index_select(0, self._inverse)
            spectrum = spectrum.view(half).mul_(self._to).div_(self._pairs[:, None])
            pixels[index] = torch.fft.irfft2(torch.view_as_complex(spectrum), s=self.shape[-2:], norm="ortho")
        return pixels.view(-1)


class Coordinates:
    """Parameters as one vector: in the coordinates of a `SpectralMetric` for each, or their values laid end to end.

    Their sizes are read now. The exponent is the metric's, None for the values themselves; 1 makes one ring of all.
    There are `numel` coordinates, of each ring of each parameter `ring_sizes`.
    """

    def __init__(self, parameters: Sequence[Tensor], exponent: float | None, rings: int) -> None:
        self._lengths = [p.numel() for p in parameters]
        self.metrics: list[SpectralMetric] | None = None
        if exponent is not None:
            self.metrics = [SpectralMetric(p.shape, exponent, p.device, p.dtype, rings) for p in parameters]
        self.numel = sum(metric.numel for metric in self.metrics) if self.metrics else sum(self._lengths)
        whole = self.metrics is None or rings == 1
        self.ring_sizes = [[self.numel]] if whole else [metric.sizes for metric in self.metrics or ()]

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
