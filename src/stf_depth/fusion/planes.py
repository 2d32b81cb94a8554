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
    result = value.clone()
    height, width = value.shape[-2:]
    rows = torch.arange(height, device=value.device, dtype=value.dtype) / max(height, width)
    columns = torch.arange(width, device=value.device, dtype=value.dtype) / max(height, width)
    # What no segment covers lies on the plane of its role at best, not on one of all unlabelled pixels.
    segments = torch.where(segments == 0, -roles.to(segments), segments)
    for segment in torch.unique(segments[is_planar]).tolist():
        y, x = torch.nonzero((is_planar & (segments == segment) & (weight > 0))[0, 0], as_tuple=True)
        if len(y) >= _MIN_SHARE * height * width:
            design = torch.stack([columns[x], rows[y], torch.ones_like(rows[y])], 1)
            here = value[0, 0, y, x]
            result[0, 0, y, x] = here + _step_to_plane(design, here, weight[0, 0, y, x], tolerance)
    return result


def _step_to_plane(design: Tensor, value: Tensor, weight: Tensor, tolerance: float) -> Tensor:
    disparity = torch.exp(value)
    # Relative residuals: far parts of a floor count as much as near ones.
    reweight = weight / disparity**2
    plane = disparity
    for _ in range(_STEPS):
        weighted = design * reweight[:, None]
        # Solved on the CPU in double precision, which not every device has.
        normal = (weighted.T @ design).cpu().double()
        normal = normal + 1e-9 * normal.diagonal().sum() * torch.eye(3, dtype=torch.float64)
        coefficients = torch.linalg.solve(normal, (weighted.T @ disparity).cpu().double()).to(value)
        plane = (design @ coefficients).clamp(min=1e-9)
        residual = disparity / plane - 1
        reweight = weight / disparity**2 / (1 + (residual / tolerance) ** 2)
    residual = (disparity / plane - 1).abs()
    gain = (1 - residual.median() / tolerance).clamp(0, 1)
    return gain / (1 + (residual / tolerance) ** 2) * (torch.log(plane) - value)
