"""Sky: its mask's border moved to where the colours change, and its depth put behind everything solid."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stf_depth.fusion.boundaries import dilate

__all__ = ["move_border_to_colours", "push_sky_back"]

# A pixel at the border mixes both colours: alone, it changes sides only where this share of it is the other side's.
_MOSTLY = 0.7
_COLOUR_NOISE = 0.02
_NOT_THERE = 1e-3


def move_border_to_colours(mask: Tensor, image: Tensor, *, band_px: int) -> Tensor:
    """``mask`` (0 or 1) with the pixels within ``band_px`` of its border given to the side whose colour they have.

    Each side's colour is the mean m and variance v, by channel, of what is farther than the band from the border,
    over a square of 6 ``band_px`` around the pixel; I changes sides where sum((I - m)^2 / v + log v) is less for the
    other one. Borders of networks' masks are smooth and lie beside the image's; where a mask is exact only mixed
    pixels look wrong, so a layer of one pixel moves only where (I - m) . (m' - m) / |m' - m|^2 is high.
    mask: (1, 1, H, W). image: (1, 3, H, W) in [0, 1].
    """
    inside, outside = 1 - dilate(1 - mask, band_px), 1 - dilate(mask, band_px)
    near = (inside < 0.5) & (outside < 0.5)
    if not bool(near.any()):
        return mask
    (mean_in, unlike_in), (mean_out, unlike_out) = (_colours(side, image, 3 * band_px) for side in (inside, outside))
    known = near & torch.isfinite(unlike_in) & torch.isfinite(unlike_out)
    step = mean_out - mean_in
    share_out = ((image - mean_in) * step).sum(1, keepdim=True) / (step * step).sum(1, keepdim=True).clamp(min=1e-6)
    leaves = known & (mask > 0.5) & (unlike_out < unlike_in)
    joins = known & (mask < 0.5) & (unlike_in < unlike_out)
    leaves = leaves & (_is_thick(leaves, 1 - mask) | (share_out > _MOSTLY))
    joins = joins & (_is_thick(joins, mask) | (share_out < 1 - _MOSTLY))
    return torch.where(leaves, 0.0, torch.where(joins, 1.0, mask))


def _colours(side: Tensor, image: Tensor, reach_px: int) -> tuple[Tensor, Tensor]:
    """Mean colour of ``side`` around each pixel, and how unlike it the pixel is: infinite where it is out of reach."""
    window = 2 * reach_px + 1
    parts = torch.cat([side, side * image, side * image * image], 1)
    sums = F.avg_pool2d(parts, window, stride=1, padding=reach_px)
    weight = sums[:, :1]
    mean, square = (sums[:, 1:] / weight.clamp(min=1e-6)).chunk(2, 1)
    variance = (square - mean * mean).clamp(min=0) + _COLOUR_NOISE**2
    unlike = ((image - mean) ** 2 / variance + torch.log(variance)).sum(1, keepdim=True)
    return mean, torch.where(weight > _NOT_THERE, unlike, torch.inf)


def _is_thick(moved: Tensor, to: Tensor) -> Tensor:
    """Pixels of ``moved`` beside one of it that does not touch ``to`` itself."""
    core = moved.to(to) * (1 - dilate(to, 1))
    return dilate(core, 1) > 0.5


def push_sky_back(log_disparity: Tensor, sky: Tensor, valid: Tensor, log_floor: float) -> Tensor:
    """Sky (0 or 1) to the smaller of ``log_floor`` and the least solid value of the frame. All (1, 1, H, W)."""
    solid = (sky < 0.5) & (valid > 0.5)
    farthest = torch.where(solid, log_disparity, torch.inf).amin()
    return torch.where(sky > 0.5, farthest.clamp(max=log_floor), log_disparity)
