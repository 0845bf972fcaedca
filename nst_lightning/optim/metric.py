"""Metrics for the image: initial inverse Hessians that are diagonal in spatial frequency.

Style transfer is ill-conditioned in pixels: low spatial frequencies move slowly. Measuring changes of the image in a
space in which a frequency f is worth f^a lets L-BFGS start from an inverse Hessian of H0 = F* diag(f^-2a) F, while the
image itself stays the parameter. How curvature really depends on frequency differs between pictures and changes along
the way (the finest frequencies, which the network hardly sees, are flat again), so the optimiser may correct H0 by a
factor for each ring of frequencies, estimated from its own steps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class SpectralMetric:
    """H0 = F* diag(f^-2a) F on images, with f in cycles per pixel, clamped below at one period of the longer side.

    `forward` maps a gradient g to H0^½ g, in coordinates in which inner products are plain sums: real and imaginary
    parts of the half spectrum, with √2 on every column that stands for a conjugate pair. `backward` is its transpose,
    so ``backward(forward(g)) = H0 g`` and inner products of forward images are ``gᵀ H0 g``. Coordinates are sorted by
    ring: rings have equal width in log f, and each is a slice.

    Args:
        shape: Shape of the image, (..., H, W).
        exponent: a; 0 is the identity.
        device: Device of the tables.
        dtype: float32 or float64.
        rings: Number of rings; those without a frequency are left out.

    Attributes:
        numel: Number of coordinates.
        sizes: Number of coordinates of each ring, from low to high frequency.
    """

    def __init__(
        self, shape: torch.Size, exponent: float, device: torch.device, dtype: torch.dtype, rings: int = 1
    ) -> None:
        self.shape = shape
        self.numel = shape[:-1].numel() * (shape[-1] // 2 + 1) * 2
        height, width = shape[-2:]
        vertical = torch.fft.fftfreq(height, device=device, dtype=dtype)
        horizontal = torch.fft.rfftfreq(width, device=device, dtype=dtype)
        frequency = (vertical[:, None].square() + horizontal.square()).sqrt().clamp(min=1 / max(height, width))
        amplitude = frequency.pow(-exponent)
        pairs = torch.full_like(horizontal, 2.0)
        pairs[0] = 1.0
        if width % 2 == 0:
            pairs[-1] = 1.0
        self._to = (amplitude * pairs.sqrt())[..., None]
        self._from = (amplitude / pairs.sqrt())[..., None]
        position = np.log(frequency.cpu().numpy().astype(np.float64))  # every device draws the same borders
        position = (position - position.min()) / max(float(np.ptp(position)), 1e-12)
        ring = np.broadcast_to(np.minimum(position * rings, rings - 1).astype(np.int64), (*shape[:-1], len(horizontal)))
        self.sizes = [2 * int(count) for count in np.bincount(ring.ravel()) if count]
        order = np.argsort(ring, axis=None, kind="stable")
        sort, unsort = (torch.from_numpy(index.astype(np.int32)) for index in (order, np.argsort(order)))
        self._order = sort.to(device) if len(self.sizes) > 1 else None
        self._inverse = unsort.to(device) if len(self.sizes) > 1 else None

    def forward(self, gradient: Tensor) -> Tensor:
        """H0^½ g: (n,) pixels -> (m,) coordinates, with m a little above n."""
        spectrum = torch.view_as_real(torch.fft.rfft2(gradient.view(self.shape), norm="ortho"))
        weighted: Tensor = (spectrum * self._to).view(-1, 2)
        return (weighted if self._order is None else weighted.index_select(0, self._order)).view(-1)

    def backward(self, coordinates: Tensor) -> Tensor:
        """The transpose of `forward`: (m,) coordinates -> (n,) pixels."""
        half = (*self.shape[:-1], self.shape[-1] // 2 + 1, 2)
        if self._inverse is not None:
            coordinates = coordinates.view(-1, 2).index_select(0, self._inverse)
        spectrum = torch.view_as_complex(coordinates.view(half) * self._from)
        pixels: Tensor = torch.fft.irfft2(spectrum, s=self.shape[-2:], norm="ortho")
        return pixels.reshape(-1)
