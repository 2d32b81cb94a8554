"""Where pixels go when the camera moves: transfer, z-buffered forward warp, backward sampling, consistency.

All functions work on disparity d = 1 / z, where a motion is linear: with ray r = K^-1 (u, v, 1) and motion (R, t)
from source to target, the point (R r + t d) projects to u' and has disparity d' = d / (R r + t d)_z. Points at
infinity (d = 0) need no special case. Arrays are torch tensors with a leading batch axis, on any device; results
on a CPU are the same bytes every time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = [
    "Sampled",
    "Warped",
    "forward_backward_error",
    "inverse_rigid",
    "pixel_rays",
    "sample_at",
    "sample_disparity",
    "transfer",
    "warp_disparity",
]

_MIN_FORWARD = 1e-4  # points closer to the target's image plane than this share of their depth have no image


@dataclass(frozen=True)
class Warped:
    """Forward-warped disparity.

    disparity: (N, H, W), 0 where nothing landed. valid: (N, H, W) bool. source_index: (N, H, W) int64, flat index
    ``y * W + x`` of the source pixel seen there, -1 where nothing landed.
    """

    disparity: Tensor
    valid: Tensor
    source_index: Tensor

    def carry(self, values: Tensor) -> Tensor:
        """Values (N, C, h, w) of the source pixels moved to where they landed: (N, C, H, W), 0 elsewhere."""
        count, channels = values.shape[:2]
        index = self.source_index.clamp(min=0).view(count, 1, -1).expand(-1, channels, -1)
        moved = values.reshape(count, channels, -1).gather(2, index)
        return moved.view(count, channels, *self.valid.shape[1:]) * self.valid[:, None]


@dataclass(frozen=True)
class Sampled:
    """A source's disparity brought to the reference along the poses.

    disparity: (N, H, W), in the reference camera, 0 where not ``valid``. valid: (N, H, W) bool, the reference pixel
    projects into the source and the source surface lies before both cameras. reprojection_px: (N, H, W), distance
    between the reference pixel and the sampled source point brought back; large at occlusions. uv_px: (N, 2, H, W),
    where the source was sampled. expected_disparity: (N, H, W), what the source should show if the reference is right.
    source_disparity: (N, H, W), what it shows.
    """

    disparity: Tensor
    valid: Tensor
    reprojection_px: Tensor
    uv_px: Tensor
    expected_disparity: Tensor
    source_disparity: Tensor


def inverse_rigid(pose: Tensor) -> Tensor:
    """Inverse of rigid motions (..., 4, 4): (R, t) -> (R^T, -R^T t)."""
    rotation = pose[..., :3, :3].transpose(-1, -2)
    inverse = torch.zeros_like(pose)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ pose[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def pixel_rays(k: Tensor, height: int, width: int) -> Tensor:
    """((u - cx) / fx, (v - cy) / fy, 1) of every pixel: (N, 3, height, width) for k (N, 3, 3)."""
    u = torch.arange(width, dtype=k.dtype, device=k.device)
    v = torch.arange(height, dtype=k.dtype, device=k.device)
    x = (u[None] - k[:, 0, 2:3]) / k[:, 0, 0:1]
    y = (v[None] - k[:, 1, 2:3]) / k[:, 1, 1:2]
    shape = (len(k), height, width)
    return torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape), x.new_ones(shape)], 1)


def transfer(
    disparity: Tensor, k_source: Tensor, k_target: Tensor, target_from_source: Tensor
) -> tuple[Tensor, Tensor]:
    """u' ~ K_target (R r + t d) and d' = d / (R r + t d)_z of every source pixel.

    disparity: (N, H, W). k_source, k_target: (3, 3) or (N, 3, 3). target_from_source: (4, 4) or (N, 4, 4). Returns
    uv_px (N, 2, H, W) and disparity in the target (N, H, W); both are NaN for points behind the target camera.
    """
    count, height, width = disparity.shape
    k_source, k_target = (_batched(k, count, disparity) for k in (k_source, k_target))
    pose = _batched(target_from_source, count, disparity)
    rays = pixel_rays(k_source, height, width).reshape(count, 3, -1)
    points = pose[:, :3, :3] @ rays + pose[:, :3, 3:] * disparity.reshape(count, 1, -1)
    return _project(points, disparity, k_target)


def _project(points: Tensor, disparity: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    count, height, width = disparity.shape
    forward = points[:, 2]
    inverse = torch.where(forward > _MIN_FORWARD, 1 / forward, torch.nan)
    u = k[:, 0, 0:1] * points[:, 0] * inverse + k[:, 0, 2:3]
    v = k[:, 1, 1:2] * points[:, 1] * inverse + k[:, 1, 2:3]
    uv = torch.stack([u, v], 1).view(count, 2, height, width)
    return uv, disparity * inverse.view_as(disparity)


def _batched(matrix: Tensor, count: int, like: Tensor) -> Tensor:
    matrix = torch.as_tensor(matrix).to(like)
    return matrix.expand(count, *matrix.shape[-2:])


def warp_disparity(
    disparity: Tensor,
    k_source: Tensor,
    k_target: Tensor,
    target_from_source: Tensor,
    *,
    valid: Tensor | None = None,
    target_hw: tuple[int, int] | None = None,
    splat: Literal["nearest", "quad"] = "nearest",
) -> Warped:
    """Z-buffered forward warp: each target pixel takes the largest disparity (nearest surface) that lands on it.

    disparity: (N, H, W). valid: (N, H, W) bool, source pixels to use. target_hw: size of the target image, that of
    the source when None. ``nearest`` rounds to one target pixel; ``quad`` writes the four around the landing point,
    which closes the one-pixel cracks of a magnified surface. Ties go to the later source pixel in row-major order.
    """
    count, height, width = disparity.shape
    target_h, target_w = target_hw or (height, width)
    uv, landed = transfer(disparity, k_source, k_target, target_from_source)
    usable = torch.isfinite(landed) if valid is None else torch.isfinite(landed) & valid
    cells = [torch.round(uv)] if splat == "nearest" else _quad(uv)
    index, inside = zip(*(_flat_index(cell, usable, target_h, target_w) for cell in cells), strict=True)
    index_all, inside_all = torch.cat(index, 1), torch.cat(inside, 1)
    source = torch.arange(height * width, device=disparity.device).expand(count, -1).repeat(1, len(cells))
    values = torch.where(inside_all, landed.reshape(count, -1).repeat(1, len(cells)), -torch.inf)
    return _nearest_surface(index_all, values, source, (target_h, target_w))


def _quad(uv: Tensor) -> list[Tensor]:
    low = torch.floor(uv)
    return [low + uv.new_tensor([dx, dy]).view(1, 2, 1, 1) for dy in (0, 1) for dx in (0, 1)]


def _flat_index(cell: Tensor, usable: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    u, v = cell[:, 0], cell[:, 1]
    inside = usable & (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    index = torch.where(inside, v * width + u, 0).long()
    return index.flatten(1), inside.flatten(1)


def _nearest_surface(index: Tensor, values: Tensor, source: Tensor, target_hw: tuple[int, int]) -> Warped:
    count, cells = len(values), target_hw[0] * target_hw[1]
    nearest = values.new_full((count, cells), -torch.inf).scatter_reduce_(1, index, values, "amax")
    # A second pass finds whose disparity won; maxima make both passes independent of the order of writes.
    won = (values == nearest.gather(1, index)) & torch.isfinite(values)
    winner = source.new_full((count, cells), -1).scatter_reduce_(1, index, torch.where(won, source, -1), "amax")
    valid = torch.isfinite(nearest)
    shape = (count, *target_hw)
    return Warped(torch.where(valid, nearest, 0).view(shape), valid.view(shape), winner.view(shape))


def sample_at(
    values: Tensor, uv_px: Tensor, *, mode: Literal["bilinear", "nearest"] = "bilinear"
) -> tuple[Tensor, Tensor]:
    """Values (N, C, H, W) at pixel positions uv_px (N, 2, h, w): (N, C, h, w), and whether each lies in the image.

    Positions between the centres of the border pixels are inside; outside, the nearest border value is returned.
    """
    height, width = values.shape[-2:]
    u, v = uv_px[:, 0], uv_px[:, 1]
    inside = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    grid = torch.stack([u * (2 / max(width - 1, 1)) - 1, v * (2 / max(height - 1, 1)) - 1], -1)
    grid = torch.where(inside[..., None], grid, grid.nan_to_num(0, 2, -2).clamp(-1, 1))
    return F.grid_sample(values, grid, mode=mode, padding_mode="border", align_corners=True), inside


def sample_disparity(
    source_disparity: Tensor,
    reference_disparity: Tensor,
    k_source: Tensor,
    k_reference: Tensor,
    source_from_reference: Tensor,
    *,
    source_valid: Tensor | None = None,
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> Sampled:
    """Sample each source where the reference surface projects, and bring the sampled surface to the reference.

    source_disparity: (N, h, w). reference_disparity: (N, H, W) or (1, H, W). Cameras and poses as in ``transfer``.
    The reference only says where to look: the value comes from the source. A source pixel that is not in
    ``source_valid`` (N, h, w) makes every bilinear sample that touches it invalid.
    """
    count = len(source_disparity)
    reference = reference_disparity.expand(count, -1, -1)
    pose = _batched(source_from_reference, count, reference)
    uv, expected = transfer(reference, k_reference, k_source, pose)
    found, inside = sample_at(source_disparity[:, None], uv, mode=mode)
    source = found[:, 0]
    valid = inside & torch.isfinite(expected)
    if source_valid is not None:
        valid = valid & (sample_at(source_valid[:, None].to(source), uv, mode=mode)[0][:, 0] > 1 - 1e-4)
    back_uv, back = _transfer_at(uv, source, k_source, k_reference, inverse_rigid(pose))
    valid = valid & torch.isfinite(back)
    grid = pixel_rays(_identity(reference), *reference.shape[1:])[:, :2]
    offset = back_uv - grid
    error = torch.where(valid, torch.hypot(offset[:, 0], offset[:, 1]), torch.inf)
    return Sampled(torch.where(valid, back, 0), valid, error, uv, expected, source)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(3, dtype=like.dtype, device=like.device)[None]


def _transfer_at(uv: Tensor, disparity: Tensor, k_from: Tensor, k_to: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
    """``transfer`` for pixels at positions uv (N, 2, H, W) instead of on the grid."""
    count = len(disparity)
    k_from, k_to = (_batched(k, count, disparity) for k in (k_from, k_to))
    x = (uv[:, 0].flatten(1) - k_from[:, 0, 2:3]) / k_from[:, 0, 0:1]
    y = (uv[:, 1].flatten(1) - k_from[:, 1, 2:3]) / k_from[:, 1, 1:2]
    rays = torch.stack([x, y, torch.ones_like(x)], 1)
    points = pose[:, :3, :3] @ rays + pose[:, :3, 3:] * disparity.reshape(count, 1, -1)
    return _project(points, disparity, k_to)


def forward_backward_error(forward_px: Tensor, backward_px: Tensor) -> tuple[Tensor, Tensor]:
    """|f(x) + b(x + f(x))|, 0 for flows that undo one another, and whether x + f(x) lies in the image.

    forward_px, backward_px: (N, H, W, 2), (dx, dy). Returns error_px (N, H, W) and inside (N, H, W) bool.
    """
    height, width = forward_px.shape[1:3]
    grid = pixel_rays(_identity(forward_px), height, width)[:, :2]
    forward = forward_px.permute(0, 3, 1, 2)
    back, inside = sample_at(backward_px.permute(0, 3, 1, 2), grid + forward)
    remainder = forward + back
    return torch.hypot(remainder[:, 0], remainder[:, 1]), inside
