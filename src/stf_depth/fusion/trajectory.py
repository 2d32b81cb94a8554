"""Temporal filter along chained flow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stf_depth.alignment.links import FLOW_SLACK
from stf_depth.fusion.resampling import resize

__all__ = [
    "Change",
    "Field",
    "Place",
    "Reading",
    "Steps",
    "Targets",
    "Tolerance",
    "around",
    "at_nearest",
    "at_size",
    "checked_steps",
    "followed",
    "is_inside",
    "look_up",
    "pixel_grid",
    "tolerated",
    "trajectory_filter",
]

Field = Callable[[int], Tensor]  # frame -> log disparity and weight, (1, 2, h, w)
Change = Callable[[int, Tensor], Tensor]  # frame and where each pixel is in it -> expected change, (1, 1, h, w)
Reading = Literal["bilinear", "nearest"]
# A gap of log disparity that halves a weight, or one for each pixel (1, 1, h, w) by the other frame, where the pixel is
# in it (1, 2, h, w), and whether that is known (1, 1, h, w).
Tolerance = float | Tensor | Callable[[int, Tensor, Tensor], Tensor]
Steps = Callable[[int], tuple[Tensor, Tensor]]  # frame -> steps to the next frame and from it back, (1, 3, h, w) each


def pixel_grid(like: Tensor) -> Tensor:
    """Pixel positions (1, 2, h, w), x before y; not to be written to."""
    return _pixel_grid(int(like.shape[-2]), int(like.shape[-1]), like.device, like.dtype)


@lru_cache(maxsize=2)  # of the low band and of the full size
def _pixel_grid(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype), torch.arange(width, device=device, dtype=dtype), indexing="ij"
    )
    return torch.stack([x, y])[None]


def look_up(values: Tensor, position: Tensor, mode: Reading = "bilinear") -> Tensor:
    """Values (1, C, H, W) at pixel positions (1, 2, h, w), those of the border outside: (1, C, h, w)."""
    height, width = values.shape[-2:]
    scale = _to_unit_square(int(height), int(width), position.device, position.dtype)
    # Clamped here: not every device can take the border's value for what lies outside.
    place = (position * scale).sub_(1).clamp_(-1, 1).permute(0, 2, 3, 1)
    return F.grid_sample(values, place, mode, padding_mode="zeros", align_corners=True)


@lru_cache(maxsize=16)  # small, and a GPU waits for each that is made anew
def _to_unit_square(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)], dtype=dtype).view(1, 2, 1, 1).to(device)


def is_inside(position: Tensor, size: tuple[int, ...]) -> Tensor:
    """Whether pixel positions (1, 2, h, w) lie in a picture of ``size`` (H, W): (1, 1, h, w) bool."""
    x, y = position.chunk(2, 1)
    return (x.clamp(0, size[1] - 1) == x) & (y.clamp(0, size[0] - 1) == y)


def at_nearest(values: Tensor, position: Tensor) -> Tensor:
    """Whole numbers (1, 1, H, W) at the pixel nearest to each position (1, 2, H, W), the border's outside."""
    height, width = values.shape[-2:]
    x, y = position.round().chunk(2, 1)
    index = torch.add(x.clamp(0, width - 1).int(), y.clamp(0, height - 1).int(), alpha=width)
    # A position without a number becomes any whole one.
    return values.flatten().index_select(0, index.flatten().clamp_(min=0)).view(index.shape)


def at_size(position: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """Pixel positions (1, 2, h, w) in a picture of size ``old`` (H, W) as those in one of ``new``, edges aligned."""
    x, y = (position + 0.5).chunk(2, 1)
    return torch.cat([x * (new[1] / old[1]), y * (new[0] / old[0])], 1) - 0.5


def checked_steps(forward: Tensor, backward: Tensor, tolerance_px: float) -> tuple[Tensor, Tensor]:
    """Flow with a third channel: 1 where |f(x) + b(x + f(x))| is under the tolerance plus |f| / 20, else 0."""
    grid = pixel_grid(forward)
    return _checked(forward, backward, grid, tolerance_px), _checked(backward, forward, grid, tolerance_px)


def _checked(there: Tensor, back: Tensor, grid: Tensor, tolerance_px: float) -> Tensor:
    returning = look_up(back, grid + there)
    gap = ((there + returning) ** 2).sum(1, keepdim=True)
    limit = tolerance_px + FLOW_SLACK * (there**2).sum(1, keepdim=True).sqrt()
    good = (gap < limit * limit) & is_inside(grid + there, back.shape[-2:])
    return torch.cat([there, good.to(there)], 1)


class Place(NamedTuple):
    """Where the pixels of a frame are in the frame ``other``.

    position: (1, 2, h, w). alive: (1, 1, h, w), 1 for those that forward and backward flow agree on, all the way, and
    that have not left the image, else 0.
    """

    other: int
    position: Tensor
    alive: Tensor


def followed(
    steps: Steps, frame: int, frame_count: int, direction: int, reach: int, nearer: Sequence[Place] = ()
) -> Iterator[Place]:
    """Frames ``frame + direction`` on, up to ``reach`` away; positions are chained from the flow between neighbours.

    nearer: the first of them, where they are known.
    """
    last = nearer[-1] if nearer else None
    yield from nearer
    for other in _neighbours(frame, direction, reach, frame_count)[len(nearer) :]:
        step = steps(other - 1)[0] if direction > 0 else steps(other)[1]
        position, alive = (pixel_grid(step), torch.ones_like(step[:, :1])) if last is None else last[1:]
        moved, inside = look_up(step, position), is_inside(position, step.shape[-2:])
        last = Place(other, position + moved[:, :2], alive * moved[:, 2:] * inside)
        yield last


def around(steps: Steps, frame: int, frame_count: int, reach: int, nearer: Sequence[Place] = ()) -> list[Place]:
    """``followed`` both ways. nearer: what this gave for a reach that is no larger."""
    sides = ((side, [place for place in nearer if (place.other - frame) * side > 0]) for side in (1, -1))
    return [place for side, known in sides for place in followed(steps, frame, frame_count, side, reach, known)]


class Targets:
    """Pixels of a picture, all or some, at which maps of flow of another size are read off."""

    def __init__(self, size: tuple[int, ...], pixels: Tensor | None = None) -> None:
        """size: (H, W). pixels: flat indices (N,), all without; maps at them are of size (1, N)."""
        self.size, self.pixels = (int(size[0]), int(size[1])), pixels
        self._xy: Tensor | None = None

    def of(self, values: Tensor) -> Tensor:
        """Maps (1, C, H, W) at the targets."""
        if self.pixels is None:
            return values
        # Channel by channel: several times as fast on a CPU.
        return torch.stack([channel.index_select(0, self.pixels) for channel in values[0].flatten(1)])[None, :, None]

    def put(self, values: Tensor, found: Tensor) -> Tensor:
        """A map (1, 1, H, W) with what was ``found`` at the targets in its place."""
        if self.pixels is None:
            return found
        return values.flatten().index_copy(0, self.pixels, found.flatten()).view(values.shape)

    def brought(self, values: Tensor) -> Tensor:
        """Maps (1, C, h, w) of the flow's size at the targets, bilinear."""
        if self.pixels is None:
            return resize(values, self.size)
        return look_up(values, at_size(self._grid(values), self.size, values.shape[-2:]))

    def moved(self, position: Tensor) -> Tensor:
        """Where the targets are, in pixels of their own picture, by positions (1, 2, h, w) of the flow's size."""
        low_height, low_width = position.shape[-2:]
        if (low_height, low_width) == self.size:
            return self.of(position)
        x, y = self.brought(position - pixel_grid(position)).chunk(2, 1)
        moved = torch.cat([x * (self.size[1] / low_width), y * (self.size[0] / low_height)], 1)
        return self._grid(position) + moved

    def _grid(self, like: Tensor) -> Tensor:
        if self._xy is None:
            self._xy = self.of(_pixel_grid(*self.size, like.device, like.dtype))
        return self._xy


def trajectory_filter(
    field: Field,
    frame: int,
    places: Iterable[Place],
    *,
    tolerance: Tolerance,
    change: Change | None = None,
    reading: Reading = "bilinear",
    pixels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """u(x) <- sum_k w_k v_k / sum_k w_k, v_k = u_k(x_k) - e_k, over the frames that ``places`` follow each pixel to.

    x_k is where the pixel is in frame k, e_k by how much the camera's motion makes u grow on the way, 0 without
    ``change``. w_k = weight_k / (1 + (|v_k - u| / tolerance)^2): values of another surface, or of the same surface at
    another distance, count less. The field may be of another size than the flow. Returns the filtered log disparity and
    the sum of the weights, each (1, 1, H, W), or (1, 1, 1, N) of ``pixels`` (N,), flat indices, alone.
    """
    whole = field(frame)
    targets = Targets(whole.shape[-2:], pixels)
    value, weight = targets.of(whole).chunk(2, 1)
    total, weights = value * weight, weight.clone()
    for other, stepped, followed_well in places:
        position, alive = targets.moved(stepped), targets.brought(followed_well)
        found = look_up(field(other), position, reading)
        seen = found[:, :1] if change is None else found[:, :1] - targets.brought(change(other, stepped))
        gap = (seen - value) / tolerated(tolerance, other, position, alive > 0.5)
        known = found[:, 1:] * alive / (1 + gap * gap)
        total = total + known * seen
        weights = weights + known
    filtered = torch.where(weights > 1e-6, total / weights.clamp(min=1e-6), value)
    return filtered, weights


def tolerated(tolerance: Tolerance, other: int, position: Tensor, known: Tensor) -> float | Tensor:
    """The tolerance of values that ``other`` has at ``position``."""
    return tolerance(other, position, known) if callable(tolerance) else tolerance


def _neighbours(frame: int, direction: int, radius: int, frame_count: int) -> range:
    if direction > 0:
        return range(frame + 1, min(frame_count, frame + radius + 1))
    return range(frame - 1, max(-1, frame - radius - 1), -1)
