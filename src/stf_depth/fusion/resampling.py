"""Maps brought to another size, pixel edges aligned."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = ["average_over_areas", "fill_unknown", "resize", "resize_masked"]


def resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) to ``size``: averaged over areas where it shrinks, bilinear where it grows; pixel edges aligned."""
    if tuple(values.shape[-2:]) == size:
        return values
    if values.shape[-2] >= size[0] and values.shape[-1] >= size[1]:
        return average_over_areas(values, size)
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)


def resize_masked(values: Tensor, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """``resize`` of the valid values alone; a result is valid where at least half of what it covers is."""
    weight = resize(valid, size)
    known = resize(values * valid, size) / weight.clamp(min=1e-6)
    good = (weight >= 0.5).to(values)
    return known * good, good


def fill_unknown(values: Tensor, known: Tensor) -> Tensor:
    """``values`` where ``known`` is 1, elsewhere the mean of what is known around, the nearest first.

    Known values are averaged to half the size again and again, and gaps filled from the coarser sizes (the pull and the
    push of Gortler et al., The Lumigraph, SIGGRAPH 1996). Both (1, 1, h, w); 0 where nothing is known at all.
    """
    height, width = values.shape[-2:]
    if max(height, width) == 1 or bool(known.all()):
        return values * known
    half = -(-height // 2), -(-width // 2)
    share = resize(known, half)
    coarse = resize(values * known, half) / share.clamp(min=1e-6)
    around = resize(fill_unknown(coarse, (share > 0).to(known)), (height, width))
    return known * values + (1 - known) * around


def average_over_areas(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) to a smaller ``size``: each pixel the mean over the area that it covers.

    Pixels that lie partly in the area count by that part. PyTorch's own mode ``area`` takes whole pixels, which moves
    what it averages by up to a third of a pixel of the result where the sizes are no multiples of each other.
    """
    height, width = values.shape[-2:]
    if height % size[0] == 0 and width % size[1] == 0:
        return F.interpolate(values, size=size, mode="area")
    return _average_over(_average_over(values, 2, size[0]), 3, size[1])


def _average_over(values: Tensor, axis: int, size: int) -> Tensor:
    pixel, share = _areas(int(values.shape[axis]), size, values.device, values.dtype)
    covered = values.index_select(axis, pixel.flatten())
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    weight = share.view(*pixel.shape, *[1] * len(after))
    return (covered.view(*before, *pixel.shape, *after) * weight).sum(axis)


@lru_cache(maxsize=16)  # small, and a GPU waits for each that is made anew
def _areas(length: int, size: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Which of ``length`` pixels each of ``size`` covers, and the share that each has in it, (K, size)."""
    edges = torch.arange(size + 1, dtype=torch.float64) * (length / size)
    low, high = edges[:-1], edges[1:]
    pixel = low.floor() + torch.arange(math.ceil(length / size) + 1, dtype=torch.float64)[:, None]
    share = (torch.minimum(high, pixel + 1) - torch.maximum(low, pixel)).clamp(min=0) * (size / length)
    return pixel.long().clamp(max=length - 1).to(device), share.to(dtype).to(device)
