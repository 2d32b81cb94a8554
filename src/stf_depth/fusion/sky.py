"""Sky: whether its masks are believed, their borders moved to where the colours change, and its depth behind all else.

A shot's masks are believed or not as a whole, small parts of them apart, so that no frame of it flips.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from stf_depth.config import FusionConfig
from stf_depth.frames import MappedFrames, nearest
from stf_depth.fusion.boundaries import border_support, dilate, nearer_half
from stf_depth.fusion.inputs import ShotInputs, sampled_frames
from stf_depth.fusion.trajectory import look_up
from stf_depth.types import BoolArray, Float32Array, Frames, Role, Uint8Array

__all__ = [
    "has_steady_sky",
    "leave_to_sharp_edges",
    "move_border_to_colours",
    "push_sky_back",
    "with_believed_sky",
]

# A pixel at the border mixes both colours: alone, it changes sides only where this share of it is the other side's.
_MOSTLY = 0.6
_COLOUR_NOISE = 0.02
_CLEARLY = 1.0
_CELLS = 4
_NOT_THERE = 1e-3
_SLACK_PX = 3
_MIN_PIXELS = 50
_STEADY = 1.5
_FAR, _SMALL_PART = 0.3, 0.25
_CLEAR_STEP = 0.2
_MEASURED = 0.3
# Of the floor of the shot's disparity: behind what anything solid is taken to be.
_BEHIND = 0.5


def with_believed_sky(inputs: ShotInputs, config: FusionConfig) -> ShotInputs:
    """``inputs``, with sky as UNKNOWN in all frames if a few frames over the shot show that its masks are wrong.

    Masks are wrong if less than ``sky_min_support`` of their border lies on edges of the image, or more than
    ``sky_max_measured`` of their area was triangulated well, which takes parallax and texture, or if the input has
    them nearer than the rest in most frames: no network takes sky for the nearer half. In masks that are believed,
    small parts that the input has nearer than the farther part of the rest become UNKNOWN too: a bush called sky.
    """
    roles = inputs.roles
    if roles is None or not config.sky or config.mode == "none":
        return inputs
    masks = {frame: np.asarray(roles[frame]) == Role.SKY for frame in sampled_frames(len(inputs))}
    partly = [frame for frame, mask in masks.items() if mask.any() and not mask.all()]
    supports = [_border_support(inputs.rgb[frame], roles[frame], config) for frame in partly]
    is_supported = not supports or float(np.mean(supports)) >= config.sky_min_support
    is_far = 2 * sum(_is_nearer(_view(inputs, roles, frame)) for frame in partly) <= len(partly)
    if is_supported and is_far and _measured_share(inputs, masks) <= config.sky_max_measured:
        return replace(inputs, roles=MappedFrames(_without_near_parts, roles, inputs.disparity, inputs.valid))
    return replace(inputs, roles=MappedFrames(lambda roles: _unknown_where(roles == Role.SKY, roles), roles))


def _unknown_where(disbelieved: BoolArray, roles: Uint8Array) -> Uint8Array:
    return np.where(disbelieved, np.uint8(Role.UNKNOWN), roles)


def _without_near_parts(roles: Uint8Array, disparity: Float32Array, valid: BoolArray) -> Uint8Array:
    sky = roles == Role.SKY
    return _unknown_where(_near_parts(sky, disparity, valid), roles) if sky.any() else roles


def _near_parts(sky: BoolArray, disparity: Float32Array, valid: BoolArray) -> BoolArray:
    """Small connected parts of the sky that lie nearer than the farther part of the rest, by their valid pixels."""
    _, parts, boxes, _ = cv2.connectedComponentsWithStats(sky.view(np.uint8), connectivity=4)
    sizes = boxes[:, cv2.CC_STAT_AREA]
    is_small = sizes < _SMALL_PART * sizes[1:].sum()
    is_small[0] = False  # what is no sky
    if not is_small.any():
        return np.zeros_like(sky)
    disparity = nearest(np.where(valid, disparity, np.float32(np.nan)), sky.shape)
    known = np.isfinite(disparity)
    judged, rest = is_small[parts] & known, disparity[known & ~sky]
    if not judged.any() or not rest.size:
        return np.zeros_like(sky)
    found = np.unique(parts[judged])
    medians = ndimage.median(disparity[judged], parts[judged], found)
    near: BoolArray = np.isin(parts, found[medians > np.quantile(rest, _FAR)])
    return near


def _border_support(rgb: Uint8Array, roles: Uint8Array, config: FusionConfig) -> float:
    sides = np.where(roles == Role.UNKNOWN, 0, np.where(roles == Role.SKY, 1, 2)).astype(np.int32)
    mask = torch.from_numpy(nearest(sides, rgb.shape[:2]))[None, None]
    image = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
    radius = 2 * _SLACK_PX + max(1, round(config.snap_radius * max(rgb.shape[:2])))
    return border_support(mask, image, radius_px=radius, slack_px=_SLACK_PX, min_support=config.snap_support)


class _View(NamedTuple):
    """One frame at the network's size."""

    disparity: Float32Array
    valid: BoolArray
    sky: BoolArray


def _view(inputs: ShotInputs, roles: Frames, frame: int) -> _View:
    disparity = np.asarray(inputs.disparity[frame], np.float32)
    valid = np.asarray(inputs.valid[frame], bool) & np.isfinite(disparity)
    return _View(disparity, valid, nearest(np.asarray(roles[frame]) == Role.SKY, disparity.shape))


def _is_nearer(view: _View) -> bool:
    sky, rest = view.disparity[view.sky & view.valid], view.disparity[~view.sky & view.valid]
    return sky.size > 0 and rest.size > 0 and float(np.median(sky)) > float(np.median(rest))


def _measured_share(inputs: ShotInputs, masks: dict[int, NDArray[np.bool_]]) -> float:
    """Share of the masks' pixels whose depth was triangulated well; 0 without structure."""
    if inputs.structure is None:
        return 0.0
    measured, pixels = 0, 0
    for frame, mask in masks.items():
        confidence = np.asarray(inputs.structure.confidence[frame])
        here = nearest(mask, confidence.shape)
        measured, pixels = measured + int((confidence[here] > _MEASURED).sum()), pixels + int(here.sum())
    return measured / max(pixels, 1)


def has_steady_sky(inputs: ShotInputs) -> bool:
    """Whether the input sees the sky about as steadily as the rest, over pairs of neighbouring frames of the shot.

    Both maps of a pair are brought to median 0 and median deviation 1 of what is no sky; the median change of the
    sky's pixels is compared with that of the others. A frame without sky counts as one whose mask is missing. A network
    that guesses at the sky anew in each frame fails it; a steady one's sky says what shift each frame has, for nothing
    solid is as far. False where there is no sky, and for a disparity that cannot tell.
    """
    roles = inputs.roles
    if roles is None or len(inputs) < 2 or not inputs.sees_sky:
        return False
    firsts = sorted({min(frame, len(inputs) - 2) for frame in sampled_frames(len(inputs))})
    changes = [
        change for frame in firsts if (change := _changes(_view(inputs, roles, frame), _view(inputs, roles, frame + 1)))
    ]
    if not changes:
        return False
    sky, rest = np.median(np.array(changes), axis=0)
    return bool(sky <= _STEADY * rest)


def _changes(*pair: _View) -> tuple[float, float] | None:
    """Median change from one frame to the next of the sky and of the rest; None where either has few pixels."""
    good = pair[0].valid & pair[1].valid
    masks = [one.sky for one in pair if one.sky.any()] or [good & False]
    sky, rest = good & np.all(masks, axis=0), good & ~np.any(masks, axis=0)
    if min(sky.sum(), rest.sum()) < _MIN_PIXELS:
        return None
    scaled = []
    for one in pair:
        centre = np.median(one.disparity[rest])
        spread = np.median(np.abs(one.disparity[rest] - centre))
        scaled.append((one.disparity - centre) / max(float(spread), 1e-12))
    change = np.abs(scaled[1] - scaled[0])
    return float(np.median(change[sky])), float(np.median(change[rest]))


def move_border_to_colours(mask: Tensor, image: Tensor, *, band_px: int) -> Tensor:
    """``mask`` (0 or 1) with the pixels within ``band_px`` of its border given to the side whose colour they have.

    Each side's colour is the mean m and variance v, by channel, of what is farther than the band from the border,
    over a square of 6 ``band_px`` around the pixel; I changes sides where sum((I - m)^2 / v + log v) is clearly less
    for the other one. Borders of networks' masks are smooth and lie beside the image's; where a mask is exact only
    mixed pixels look wrong, so a layer of one pixel moves only where (I - m) . (m' - m) / |m' - m|^2 is high.
    mask: (1, 1, H, W). image: (1, 3, H, W) in [0, 1].
    """
    inside, outside = 1 - dilate(1 - mask, band_px), 1 - dilate(mask, band_px)
    near = ((inside < 0.5) & (outside < 0.5)).flatten().nonzero()[:, 0]
    if len(near) == 0:
        return mask
    moments = torch.cat([torch.ones_like(mask), image, image * image], 1)
    here = image.flatten(2).index_select(2, near)
    (mean_in, unlike_in), (mean_out, unlike_out) = (
        _colours(side * moments, here, near, 3 * band_px) for side in (inside, outside)
    )
    known = torch.isfinite(unlike_in) & torch.isfinite(unlike_out)
    step = mean_out - mean_in
    share_out = ((here - mean_in) * step).sum(1) / (step * step).sum(1).clamp(min=1e-6)
    is_in = mask.flatten().index_select(0, near) > 0.5
    leaves = _on_map(known & is_in & (unlike_out + _CLEARLY < unlike_in), near, mask)
    joins = _on_map(known & ~is_in & (unlike_in + _CLEARLY < unlike_out), near, mask)
    leaves = leaves & (_is_thick(leaves, 1 - mask) | _on_map(share_out > _MOSTLY, near, mask))
    joins = joins & (_is_thick(joins, mask) | _on_map(share_out < 1 - _MOSTLY, near, mask))
    return torch.where(leaves, 0.0, torch.where(joins, 1.0, mask))


def _colours(moments: Tensor, colours: Tensor, pixels: Tensor, reach_px: int) -> tuple[Tensor, Tensor]:
    """Mean colour of a side around each of ``pixels``, and how unlike it they are: infinite where it is out of reach.

    moments: 1, colour and its square on that side, 0 on the other, (1, 7, H, W). colours: (1, 3, N), of the pixels.
    pixels: (N,), flat indices. Returns (1, 3, N) and (1, N).
    """
    # Means over many pixels are smooth: they are taken on cells and read off between their centres.
    cell = max(1, reach_px // _CELLS)
    around = round(reach_px / cell)
    cells = F.avg_pool2d(moments, cell, stride=cell, ceil_mode=True)
    means = F.avg_pool2d(cells, 2 * around + 1, stride=1, padding=around)
    width = moments.shape[-1]
    place = torch.stack([pixels % width, pixels // width]).to(moments)
    sums = look_up(means, ((place + 0.5) / cell - 0.5)[None, :, None])[:, :, 0]
    weight = sums[:, :1]
    mean, square = (sums[:, 1:] / weight.clamp(min=1e-6)).chunk(2, 1)
    variance = (square - mean * mean).clamp(min=0) + _COLOUR_NOISE**2
    unlike = ((colours - mean) ** 2 / variance + torch.log(variance)).sum(1)
    return mean, torch.where(weight[:, 0] > _NOT_THERE, unlike, torch.inf)


def _on_map(values: Tensor, pixels: Tensor, like: Tensor) -> Tensor:
    """Bools (1, N) of ``pixels`` on a map of the shape of ``like``, False elsewhere."""
    found = torch.zeros(like.numel(), dtype=torch.bool, device=like.device)
    return found.index_copy(0, pixels, values[0]).view(like.shape)


def _is_thick(moved: Tensor, to: Tensor) -> Tensor:
    """Pixels of ``moved`` beside one of it that does not touch ``to`` itself."""
    core = moved.to(to) * (1 - dilate(to, 1))
    return dilate(core, 1) > 0.5


def leave_to_sharp_edges(sky: Tensor, disparity: Tensor, *, radius_px: int) -> Tensor:
    """``sky`` (0 or 1) without what ``disparity`` has on the nearer side of a sharp edge close to the sky's border.

    A network that draws a sharp edge there knows better than a mask whose border lies beside it. All (1, 1, H, W).
    """
    at_border = dilate(1 - sky, radius_px) > 0.5
    near = nearer_half(disparity, radius_px=radius_px, min_step=_CLEAR_STEP)
    return sky * (~(at_border & near)).to(sky)


def push_sky_back(log_disparity: Tensor, sky: Tensor, floor: float) -> Tensor:
    """Sky (0 or 1) to one value for the shot, beyond the log of ``floor``, and nothing solid farther. (1, 1, H, W)."""
    behind = math.log(_BEHIND * floor)
    return torch.where(sky > 0.5, behind, log_disparity.clamp(min=behind))
