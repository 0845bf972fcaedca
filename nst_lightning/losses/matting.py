"""The matting Laplacian: the picture stays locally an affine function of the content's colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.errors import UserError
from nst_lightning.losses.term import Matrices, Term

_UNIT = 0.01  # root mean square of what no affine function explains, in a channel, that counts as 1
_STRIP = 1 << 16  # windows that are looked at together: some forty maps of so many values stay in a processor's cache
_MAPS = 54  # of a strip that are there at once, for estimates: counted, at 512 to 2048 px
_LEAST_EPSILON = 1e-7
_SECOND = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # pairs of channels of a symmetric matrix


class LocalFit(NamedTuple):
    """The affine functions of the content's colours that come nearest to the picture, window by window."""

    slopes: Tensor  # (3, 3, h', w'): of each channel of the picture by each of the content
    offsets: Tensor  # (3, h', w')
    residual: Tensor  # (h', w'): what is left, a mean over the window's pixels, summed over channels; and ε |slopes|²


def local_fit(image: Tensor, content: Tensor, side: int, epsilon: float) -> LocalFit:
    """Fit the picture by the content in each window.

    By means, variances and covariances over the pixels of a window, the slopes a of a channel v by the colours I are
    (cov(I, I) + ε)⁻¹ cov(I, v), and what they leave is var(v) - a · cov(I, v): the least mean of
    (v - a · I - b)² + ε |a|² (Levin, Lischinski and Weiss 2008, A Closed-Form Solution to Natural Image Matting; He,
    Sun and Tang 2010, Guided Image Filtering, has it in sums over boxes, whose time hardly grows with their size).

    Args:
        image: (3, h, w).
        content: (3, h, w).
        side: Height and width of the windows, at most h and w; there are h - side + 1 by w - side + 1 of them.
        epsilon: ε, the variance of a channel below which an edge of the content counts as noise.
    """

    def means(maps: Tensor) -> Tensor:
        return box_sums(maps, side).div_(side**2)

    # Some maps at a time, and what is not needed any more is given up: of a large picture with large windows they take
    # as much memory as all the rest.
    mean, ours = means(content), means(image)
    second = means(torch.stack([content[i] * content[j] for i, j in _SECOND]))
    lower = _cholesky([second[k] - mean[i] * mean[j] for k, (i, j) in enumerate(_SECOND)], epsilon)
    del second
    # Each channel of the content with all of the picture; by L y = cov, Lᵀ a = y.
    c0, c1, c2 = (means(content[i] * image).sub_(mean[i] * ours) for i in range(3))
    l00, l10, l20, l11, l21, l22 = lower
    y0 = c0.div_(l00)
    y1 = c1.sub_(l10 * y0).div_(l11)
    y2 = c2.sub_(l20 * y0).sub_(l21 * y1).div_(l22)
    # What is explained is |y|², which never falls below 0. What is left would by rounding, in a window of one colour.
    variance = means(image.square()).sub_(ours.square())
    residual = (variance.sub_(y0.square()).sub_(y1.square()).sub_(y2.square())).sum(0).clamp_(min=0)
    a2 = y2.div_(l22)
    a1 = y1.sub_(l21 * a2).div_(l11)
    a0 = y0.sub_(l10 * a1).sub_(l20 * a2).div_(l00)
    slopes = torch.stack([a0, a1, a2], 1)
    return LocalFit(slopes, ours - (slopes * mean).sum(1), residual)


def box_sums(maps: Tensor, side: int) -> Tensor:
    """Sums over all boxes that lie inside: (n, h, w) -> (n, h - side + 1, w - side + 1).

    Boxes of a side of 1, 2, 4 and so on, and of them those that the side is made up of: unlike running sums over whole
    rows they lose no digits.
    """
    for dim in (-2, -1):
        length, wanted = side, maps.shape[dim] - side + 1
        at, span, total = 0, 1, maps.new_zeros(())
        while length:
            if length & 1:
                total, at = total + maps.narrow(dim, at, wanted), at + span
            length >>= 1
            if length:
                rest = maps.shape[dim] - span
                maps, span = maps.narrow(dim, 0, rest) + maps.narrow(dim, span, rest), 2 * span
        maps = total
    return maps


def _cholesky(covariance: Sequence[Tensor], epsilon: float) -> list[Tensor]:
    """Of 3x3 matrices in the order of `_SECOND`, with ε on the diagonal; of the factor L the same places, transposed.

    By hand, as libraries take matrices one by one. In exact arithmetic no pivot is below ε.
    """
    s00, s01, s02, s11, s12, s22 = covariance
    l00 = (s00 + epsilon).clamp(min=epsilon).sqrt()
    l10, l20 = s01 / l00, s02 / l00
    l11 = (s11 + epsilon - l10.square()).clamp(min=epsilon).sqrt()
    l21 = (s12 - l10 * l20) / l11
    l22 = (s22 + epsilon - l20.square() - l21.square()).clamp(min=epsilon).sqrt()
    return [l00, l10, l20, l11, l21, l22]


class MattingLaplacian(Term):
    """Keep the picture a photograph: in each small window its colours are an affine function of the content's.

    Light, contrast and colour may change from place to place, but what is an edge in the content stays one, sharp and
    where it is, and where the content is even no stroke appears (Luan, Paris, Shechtman and Bala 2017, Deep Photo Style
    Transfer, equation 2: the sum over channels of vᵀ L v, with the matting Laplacian L of Levin, Lischinski and Weiss).
    Here it is the mean over windows of what the best affine function leaves, `local_fit`, which is the same sum without
    a matrix, over the pixels of a window and the number of windows. There is a window about each pixel, and beyond the
    border the pictures go on as their mirror images, so that all pixels lie in as many windows: those at a corner would
    be in one alone, and free to take on strokes.

    It is 1 where 0.01 is left in each channel, as a root mean square, and about 0 for any affine function of the
    content's colours, such as that of `match_colors`.

    Args:
        weight: Factor on the term.
        radius: Of windows, from their middle, as a share of the picture's longer side: 0.05 are 26 pixels of 512, and
            windows of 53x53. Larger ones hold together what is farther apart, such as panes of a wall; 0.002 are the
            windows of 3x3 that Luan et al. take, which let light change within any shape. One pixel at the least.
        epsilon: The variance of a channel in a window below which an edge of the content counts as noise; slopes are
            held back by it, so that noise is not amplified.
    """

    group = "content"
    sees_image = True
    needs_content = balanced = True
    copies = 1.0  # the gradient

    def __init__(self, weight: float = 1.0, radius: float = 0.05, epsilon: float = 1e-5) -> None:
        super().__init__([], weight)
        if not 0 <= radius <= 0.5:
            raise UserError(f"{self.name}.radius: must be from 0 to 0.5, got {radius}; 0.05 is a good start")
        if not epsilon >= _LEAST_EPSILON:
            raise UserError(
                f"{self.name}.epsilon: must be at least {_LEAST_EPSILON}, where single precision ends, got {epsilon}; "
                "1e-5 is a good start"
            )
        self.radius, self.epsilon = radius, epsilon

    def workspace(self, channels: Sequence[int], size: tuple[int, int]) -> Matrices:
        """Maps of a strip with its borders, which all windows reach into."""
        radius = max(1, round(self.radius * max(size)))
        rows = min(size[0], max(4 * (2 * radius + 1), _STRIP // size[1])) + 4 * radius
        return Matrices(passing=_MAPS * 4 * rows * (size[1] + 4 * radius))

    def image_loss(self, image: Tensor, content: Tensor | None, weights: Tensor | None) -> Tensor:
        """Mean of what the fits leave, as weights count the pixels that windows are about."""
        assert content is not None
        radius = max(1, round(self.radius * max(image.shape[-2:])))
        loss: Tensor = _Residual.apply(image, content.to(image), weights, radius, self.epsilon)
        return loss / (3 * _UNIT**2)


class _Residual(torch.autograd.Function):
    """Mean residual and its gradient at once, in strips of rows, so that neither leaves more than the gradient behind.

    As the fits are the best there are, what they leave changes with the picture as if they stayed what they are: the
    gradient at a pixel is 2 (v - a · I - b) summed over the windows that hold it, that is v less its guided filter.
    """

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, content: Tensor, weights: Tensor | None, radius: int, epsilon: float
    ) -> Tensor:
        ours, side = image.detach()[0], 2 * radius + 1
        total, gradient = ours.new_zeros(()), torch.empty_like(ours) if image.requires_grad else None
        shares = torch.ones_like(ours[:1]) if weights is None else weights[0].to(ours)
        shares = shares / shares.sum().clamp(min=1e-6)
        height, width = ours.shape[-2:]
        columns = _mirrored(-2 * radius, width + 2 * radius, width, ours.device)
        inside = slice(radius, -radius)
        step = max(4 * side, _STRIP // width)
        for first in range(0, height, step):
            last = min(first + step, height)
            rows = _mirrored(first - 2 * radius, last + 2 * radius, height, ours.device)
            # About a middle of the range, where squares keep more digits.
            v, guide = (picture[:, rows[:, None], columns] - 0.5 for picture in (ours, content[0]))
            share = shares[:, rows[inside, None], columns[inside]]
            fit = local_fit(v, guide, side, epsilon)
            total = total + (fit.residual * share[0])[inside, inside].sum()
            if gradient is not None:
                middle = slice(2 * radius, -2 * radius)
                v, guide = v[:, middle, middle], guide[:, middle, middle]
                count = box_sums(share, side).div_(side**2)
                for channel, (slopes, offset) in enumerate(zip(fit.slopes, fit.offsets, strict=True)):
                    maps = box_sums(torch.cat([slopes, offset[None]]).mul_(share), side).div_(side**2)
                    explained = (maps[:3] * guide).sum(0) + maps[3]
                    gradient[channel, first:last] = (v[channel] * count[0]).sub_(explained).mul_(2)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return None if gradient is None else (gradient * upstream)[None], None, None, None, None


def _mirrored(first: int, last: int, length: int, device: torch.device) -> Tensor:
    """Indices of so many places of a row that goes on as its mirror image at both ends: ... 1 0 0 1 ... n n ..."""
    places = torch.arange(first, last, device=device) % (2 * length)
    return torch.minimum(places, 2 * length - 1 - places)
