"""Ground, walls and tables as planes, where the depth itself says so."""

from __future__ import annotations

import torch
from torch import Tensor

from stf_depth.types import Role

__all__ = ["flatten_planes"]

_MIN_SHARE = 0.01  # of the frame; smaller segments have too little base for a slope
_STEPS = 5


def flatten_planes(field: Tensor, segments: Tensor, roles: Tensor, *, tolerance: float) -> Tensor:
    """Move log disparity towards a plane in disparity, d = a x + b y + c, on each ground or planar segment.

    The plane is fitted by reweighted least squares on relative residuals r = d / plane - 1, Cauchy scale ``tolerance``.
    A pixel moves by g / (1 + (r / tolerance)^2), g falling from 1 to 0 while the median of |r| grows to ``tolerance``:
    what lies on a table stays, and a segment that is no plane stays whole. field: (1, 2, h, w), log disparity and
    weight. segments, roles: (1, 1, h, w). Returns log disparity (1, 1, h, w).
    """
    value, weight = field[:, :1], field[:, 1:]
    is_planar = (roles == int(Role.GROUND)) | (roles == int(Role.PLANAR))
    if not bool(is_planar.any()):
        return value
    height, width = value.shape[-2:]
    # What no segment covers lies on the plane of its role at best, not on one of all unlabelled pixels.
    segments = torch.where(segments == 0, -roles.to(segments), segments)
    pixels, counts = _by_segment(segments, is_planar & (weight > 0), round(_MIN_SHARE * height * width))
    if not counts:
        return value
    rows, columns = (pixels // width).to(value), (pixels % width).to(value)
    long_side = max(height, width)
    design = torch.stack([columns / long_side, rows / long_side, torch.ones_like(rows)], 1)
    here, heavy = value.flatten()[pixels], weight.flatten()[pixels]
    moved = here + _step_to_planes(design, here, heavy, counts, tolerance)
    return value.flatten().index_copy(0, pixels, moved).view(value.shape)


def _by_segment(segments: Tensor, chosen: Tensor, least: int) -> tuple[Tensor, list[int]]:
    """Flat indices (N,) of the chosen pixels, segment by segment, of segments with ``least``, and how many of each."""
    pixels = chosen.flatten().nonzero()[:, 0]
    ids = segments.flatten()[pixels]
    order = ids.argsort(stable=True)
    _, counts = torch.unique(ids, return_counts=True)
    is_large = counts >= max(1, least)
    kept = is_large.repeat_interleave(counts)
    return pixels[order[kept]], counts[is_large].tolist()


def _step_to_planes(design: Tensor, value: Tensor, weight: Tensor, counts: list[int], tolerance: float) -> Tensor:
    """By how much each pixel's log disparity moves; ``counts`` of the pixels belong to one segment after the other."""
    disparity = torch.exp(value)
    seen = torch.cat([design, disparity[:, None]], 1)
    segment = torch.arange(len(counts), device=value.device).repeat_interleave(torch.tensor(counts).to(value.device))
    # Relative residuals: far parts of a floor count as much as near ones.
    usual = weight / disparity**2
    reweight, plane = usual, disparity
    for _ in range(_STEPS):
        weighted = torch.split(design * reweight[:, None], counts)
        moments = torch.stack([one.T @ other for one, other in zip(weighted, torch.split(seen, counts), strict=True)])
        coefficients = _solved(moments).to(value)
        plane = (design * coefficients.index_select(0, segment)).sum(1).clamp(min=1e-9)
        reweight = usual / (1 + ((disparity / plane - 1) / tolerance) ** 2)
    residual = (disparity / plane - 1).abs()
    medians = torch.stack([one.median() for one in torch.split(residual, counts)])
    gain = (1 - medians / tolerance).clamp(0, 1).index_select(0, segment)
    return gain / (1 + (residual / tolerance) ** 2) * (torch.log(plane) - value)


def _solved(moments: Tensor) -> Tensor:
    """Plane coefficients (G, 3) of normal equations (G, 3, 4); on the CPU, not every device has double precision."""
    double = moments.cpu().double()
    normal, right = double[..., :3], double[..., 3:]
    ridge = 1e-9 * normal.diagonal(dim1=1, dim2=2).sum(1)
    solved: Tensor = torch.linalg.solve(normal + ridge[:, None, None] * torch.eye(3, dtype=torch.float64), right)
    return solved[..., 0]
