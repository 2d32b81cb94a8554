"""Edge-aware upsampling to the source's resolution."""

from __future__ import annotations

import torch
from torch import Tensor

from stf_depth.fusion.resampling import resize
from stf_depth.types import BoolArray, Float32Array, Uint8Array

__all__ = ["joint_upsample", "upsample_disparity"]


def upsample_disparity(
    disparity: Float32Array, valid: BoolArray, rgb: Uint8Array, *, colour_spread: float = 0.06, device: str = "cpu"
) -> Float32Array:
    """Disparity (h, w) float32 at the size of rgb (H, W, 3) uint8, its edges moved to those of the image.

    Each pixel takes the weighted mean of those of the four nearest disparity values that are valid, weighted by
    bilinear distance and by exp(-|I - I_k|^2 / (2 colour_spread^2)), I the pixel's colour in [0, 1] and I_k the mean
    colour of the k-th value's own pixel area (Kopf et al., Joint bilateral upsampling, SIGGRAPH 2007). Values are only
    mixed, so constants and ranges are kept. 0 where none of the four is valid.
    """
    image = torch.from_numpy(rgb).to(device).permute(2, 0, 1)[None].float() / 255
    values = torch.from_numpy(disparity).to(device)[None, None]
    if valid.all():
        return _as_map(joint_upsample(values, image, colour_spread=colour_spread))
    known = torch.from_numpy(valid).to(values)[None, None]
    both = torch.cat([torch.where(known > 0, values, 0), known], 1)
    total, weight = joint_upsample(both, image, colour_spread=colour_spread).chunk(2, 1)
    return _as_map(torch.where(weight > 0, total / weight, 0))


def _as_map(values: Tensor) -> Float32Array:
    result: Float32Array = values[0, 0].cpu().numpy()
    return result


def joint_upsample(values: Tensor, image: Tensor, *, colour_spread: float) -> Tensor:
    """``upsample_disparity`` for tensors: values (1, C, h, w), image (1, 3, H, W) in [0, 1] -> (1, C, H, W)."""
    height, width = image.shape[-2:]
    low_h, low_w = values.shape[-2:]
    if (low_h, low_w) == (height, width):
        return values
    small = torch.cat([values, resize(image, (low_h, low_w))], 1)
    y0, fy = _neighbours(height, low_h, values)
    x0, fx = _neighbours(width, low_w, values)
    # Columns first: reading along rows is the slow direction, and there are fewer rows of the small picture.
    columns = [small.index_select(3, (x0 + dx).clamp(0, low_w - 1)) for dx in (0, 1)]
    total = values.new_zeros(1, values.shape[1], height, width)
    weights = values.new_zeros(1, 1, height, width)
    for dy in (0, 1):
        for dx in (0, 1):
            there = columns[dx].index_select(2, (y0 + dy).clamp(0, low_h - 1))
            value, colour = there[:, : values.shape[1]], there[:, values.shape[1] :]
            near = (fy if dy else 1 - fy)[:, None] * (fx if dx else 1 - fx)[None, :]
            distance = ((image - colour) ** 2).sum(1, keepdim=True)
            weight = (near + 1e-3) * (torch.exp(distance * (-0.5 / colour_spread**2)) + 1e-4)
            total += weight * value
            weights += weight
    return total / weights


def _neighbours(size: int, low: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the lower neighbour and the distance from it, pixel edges aligned."""
    position = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) * (low / size) - 0.5
    lower = torch.floor(position)
    return lower.long(), position - lower
