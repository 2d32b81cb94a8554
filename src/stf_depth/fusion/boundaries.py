"""Depth edges moved to segment borders, without halos."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = ["border_support", "dilate", "grow", "nearer_half", "sharp_edges", "snap_to_segments"]

# So many times steeper than the surfaces beside it must an edge be: a road that runs away from the camera is none.
_STEEPER = 2.0
# Share of an edge's whole step that one pixel takes: an edge that is sharp already stays where the depth has it.
_SOFT, _SHARP = 0.36, 0.48


def snap_to_segments(
    log_disparity: Tensor, segments: Tensor, rgb: Tensor, *, radius_px: int, min_contrast: float, min_support: float
) -> Tensor:
    """Replace values within ``radius_px`` of a segment border by what the inside of the same segment continues to.

    The inside grows outwards one pixel at a time, each new pixel the mean of its known neighbours of the same segment,
    held within the range of the old values nearby, so that nothing overshoots. Parts too thin to have an inside grow
    from what lies deepest in them. It is used where all of this holds: values near by differ by more than
    ``min_contrast`` beyond what the slopes of the insides explain; no pixel near by takes about half of that step, for
    such an edge is sharp already; and the image has its edge at the border: gradients there exceed those beside it
    ``min_support`` times. A shifted or invented mask fails the last, and leaves the depth as it is.
    log_disparity: (1, 1, H, W). segments: (1, 1, H, W) int32, 0 unlabelled. rgb: (1, 3, H, W) in [0, 1].
    """
    border = _border(segments)
    near = dilate(border, radius_px)
    known = ((near < 0.5) & (segments > 0)).to(log_disparity)
    if not bool((near * (segments > 0)).any()) or not bool(known.any()):
        return log_disparity
    value, filled = _continued(log_disparity, known, border, segments, radius_px)
    low, high = _range_around(log_disparity, radius_px + 1)
    value = torch.maximum(torch.minimum(value, high), low)
    contrast = _has_step(log_disparity, (low, high), known, radius_px, min_contrast).to(value)
    soft = _softness(log_disparity, high - low, radius_px + 1)
    accept = near * filled * contrast * soft * _support(border, near, rgb, radius_px, min_support)
    return log_disparity + accept * (value - log_disparity)


def _continued(
    values: Tensor, known: Tensor, border: Tensor, segments: Tensor, radius_px: int
) -> tuple[Tensor, Tensor]:
    """The inside grown to the borders, and 1 where it arrived, (1, 1, H, W) each.

    What the inside does not reach is a thin part: its own inside begins at a third of the distance.
    """
    value, filled = grow(values, known, segments, radius_px + 1)
    shallow_px = round(radius_px / 3)
    if shallow_px == 0:
        return value, filled
    deep = (dilate(border, shallow_px) < 0.5) & (segments > 0) & (filled < 0.5)
    seeded = torch.where(deep, values, value)
    return grow(seeded, torch.maximum(filled, deep.to(filled)), segments, shallow_px + 1)


def _border(segments: Tensor) -> Tensor:
    """1 on both pixels of every pair of 4-neighbours with different ids, neither of them unlabelled."""
    border = torch.zeros(segments.shape, dtype=torch.float32, device=segments.device)
    across = _differ(segments[..., :, 1:], segments[..., :, :-1])
    down = _differ(segments[..., 1:, :], segments[..., :-1, :])
    border[..., :, 1:] += across
    border[..., :, :-1] += across
    border[..., 1:, :] += down
    border[..., :-1, :] += down
    return border.clamp(max=1)


def _differ(first: Tensor, second: Tensor) -> Tensor:
    return ((first != second) & (first > 0) & (second > 0)).float()


def dilate(mask: Tensor, radius_px: int) -> Tensor:
    """Largest value within ``radius_px`` in x and y: maxima of windows that double, so that the radius costs little."""
    found = F.pad(mask, (radius_px,) * 4, value=-torch.inf)
    for axis in (2, 3):
        reach = 1
        while reach < 2 * radius_px + 1:
            step = min(reach, 2 * radius_px + 1 - reach)
            length = found.shape[axis] - step
            found = torch.maximum(found.narrow(axis, 0, length), found.narrow(axis, step, length))
            reach += step
    return found


def _has_step(
    log_disparity: Tensor, around: tuple[Tensor, Tensor], known: Tensor, radius_px: int, min_contrast: float
) -> Tensor:
    """Whether the values ``around`` differ by more than ``min_contrast`` beyond what the slopes explain.

    Compared as disparity, in which a plane has one slope: that of a road's log disparity grows up to the horizon.
    """
    disparity, low, high = torch.exp(log_disparity), torch.exp(around[0]), torch.exp(around[1])
    beyond = high - low - _STEEPER * _slope(disparity, known, radius_px)
    return (beyond / (-math.expm1(-min_contrast) * high).clamp(min=1e-9) - 0.5).clamp(0, 1)


def _softness(values: Tensor, span: Tensor, radius_px: int) -> Tensor:
    """1 where no pixel within ``radius_px`` takes much of the whole ``span`` of the values there, 0 where one does."""
    across = F.pad(values[..., :, 1:] - values[..., :, :-1], (0, 1, 0, 0))
    down = F.pad(values[..., 1:, :] - values[..., :-1, :], (0, 0, 0, 1))
    share = dilate(torch.hypot(across, down), radius_px) / span.clamp(min=1e-6)
    return ((_SHARP - share) / (_SHARP - _SOFT)).clamp(0, 1)


def nearer_half(disparity: Tensor, *, radius_px: int, min_step: float) -> Tensor:
    """Whether a pixel belongs to the nearer side of a sharp edge within ``radius_px``, (1, 1, H, W) bool.

    min_step: of the nearer side's disparity; a smaller step is no edge.
    """
    low, high = _range_around(disparity, radius_px)
    is_edge = (_softness(disparity, high - low, radius_px) == 0) & (high - low > min_step * high)
    return is_edge & (2 * disparity > low + high)


def sharp_edges(disparity: Tensor, *, radius_px: int, min_step: float) -> Tensor:
    """0 to 1: how far there is an edge within ``radius_px`` of which one pixel takes about half or more, (1, 1, H, W).

    min_step: of the nearer side's disparity; a step of half of it is none, one and a half times it counts in full.
    """
    low, high = _range_around(disparity, radius_px)
    step = ((high - low) / (min_step * high).clamp(min=1e-9) - 0.5).clamp(0, 1)
    return step * (1 - _softness(disparity, high - low, radius_px))


def _slope(values: Tensor, known: Tensor, radius_px: int) -> Tensor:
    """By how much values change across a square of ``radius_px`` around each pixel where ``known`` ones are smooth."""
    steps, pairs = torch.zeros_like(values).repeat(1, 2, 1, 1), torch.zeros_like(known).repeat(1, 2, 1, 1)
    for channel, axis in enumerate((3, 2)):
        length = values.shape[axis] - 1
        step = values.narrow(axis, 1, length) - values.narrow(axis, 0, length)
        steps[:, channel : channel + 1].narrow(axis, 1, length).copy_(step.abs())
        both = known.narrow(axis, 1, length) * known.narrow(axis, 0, length)
        pairs[:, channel : channel + 1].narrow(axis, 1, length).copy_(both)
    return 2 * (radius_px + 1) * _means_over(steps, pairs, 4 * radius_px + 1).sum(1, keepdim=True)


def _range_around(values: Tensor, radius_px: int) -> tuple[Tensor, Tensor]:
    return -dilate(-values, radius_px), dilate(values, radius_px)


def grow(values: Tensor, known: Tensor, segments: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """``values`` where they are ``known`` (0 or 1), grown by one pixel in each of ``steps``, and where there are some.

    A new pixel is the mean of those of its 4 neighbours that are known and of its segment; 0 where none arrives, and
    where there is no segment. All (1, 1, H, W).
    """
    # Few of a picture's pixels are to be filled: only they are worked on, by the indices of their neighbours.
    value, filled = (values * known).flatten(), known.flatten().clone()
    left = ((filled < 0.5) & (segments.flatten() > 0)).nonzero()[:, 0]
    beside = _neighbours_of(left, segments)
    for _ in range(steps):
        above, below, before, behind = (value.index_select(0, one) for one in beside)
        total = above + below + before + behind
        count = torch.stack([filled.index_select(0, one) for one in beside]).sum(0)
        here, done = value.index_select(0, left), filled.index_select(0, left)
        value.index_copy_(0, left, here + (1 - done) * (total / count.clamp(min=1)))
        filled.index_copy_(0, left, torch.maximum(done, count.clamp(max=1)))
    return value.view(values.shape), filled.view(values.shape)


def _neighbours_of(pixels: Tensor, segments: Tensor) -> list[Tensor]:
    """Flat indices above, below, before and behind each of ``pixels`` (N,), its own for one of another segment."""
    height, width = segments.shape[-2:]
    ids = segments.flatten()
    own = ids.index_select(0, pixels)
    y, x = pixels // width, pixels % width
    near = (
        pixels - width * (y > 0),
        pixels + width * (y < height - 1),
        pixels - 1 * (x > 0),
        pixels + 1 * (x < width - 1),
    )
    return [torch.where(ids.index_select(0, other) == own, other, pixels) for other in near]


def border_support(segments: Tensor, rgb: Tensor, *, radius_px: int, slack_px: int, min_support: float) -> float:
    """Share of a mask's border that lies within ``slack_px`` of an image edge: [0, 1], 1 where there is no border.

    segments: (1, 1, H, W) int32, 0 unlabelled. rgb: (1, 3, H, W) in [0, 1].
    """
    border = _border(segments)
    if not bool(border.any()):
        return 1.0
    near = dilate(border, radius_px)
    blunt = F.avg_pool2d(rgb, 2 * slack_px + 1, stride=1, padding=slack_px)
    support = _support(border, near, blunt, radius_px, min_support, slack_px)
    return float((support * border).sum() / border.sum())


def _support(
    border: Tensor, near: Tensor, rgb: Tensor, radius_px: int, min_support: float, slack_px: int = 1
) -> Tensor:
    """0 to 1: how much stronger image gradients are on the border than beside it, in a neighbourhood of each pixel."""
    gradient = torch.zeros_like(border)
    gradient[..., :, 1:] += (rgb[..., :, 1:] - rgb[..., :, :-1]).abs().amax(1, keepdim=True)
    gradient[..., 1:, :] += (rgb[..., 1:, :] - rgb[..., :-1, :]).abs().amax(1, keepdim=True)
    side = 4 * radius_px + 1
    thick = dilate(border, slack_px)
    beside = near * (1 - thick)
    means = _means_over(gradient, torch.cat([thick, beside], 1), side)
    ratio = means[:, :1] / (min_support * (means[:, 1:] + 0.004))
    return ((ratio - 0.8) / 0.4).clamp(0, 1)


def _means_over(values: Tensor, masks: Tensor, side: int) -> Tensor:
    """Mean of values (1, 1 or C, H, W) under each of masks (1, C, H, W) over squares of about ``side`` pixels."""
    # A mean over many pixels is smooth: it is taken on cells of 4 by 4 and read off between their centres.
    cell = 4 if side >= 12 else 1
    cells = F.avg_pool2d(torch.cat([masks, values * masks], 1), cell, stride=cell, ceil_mode=True)
    around = max(1, round(side / cell)) // 2
    mass, total = F.avg_pool2d(cells, 2 * around + 1, stride=1, padding=around).chunk(2, 1)
    means = total / mass.clamp(min=1e-6)
    wide = F.interpolate(means, scale_factor=cell, mode="bilinear", align_corners=False)
    return wide[..., : values.shape[2], : values.shape[3]]
