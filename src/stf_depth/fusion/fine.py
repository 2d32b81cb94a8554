"""Temporal filter at full size: what each frame adds to the low band is steadied too."""

from __future__ import annotations

from torch import Tensor

from stf_depth.config import FusionConfig
from stf_depth.fusion.fields import Fields
from stf_depth.fusion.matching import NearCounterparts
from stf_depth.fusion.reader import FrameCache
from stf_depth.fusion.resampling import resize
from stf_depth.fusion.trajectory import Field, Targets, Tolerance, at_size, look_up, pixel_grid
from stf_depth.parallel import AHEAD_ITEMS

__all__ = ["FineFilter"]

_STATIC = 0.99  # a pixel that is static by more takes no part of what flow says


class FineFilter:
    """u <- s p + (1 - s) f: p the mean along the camera's poses, f that along flow, s how far a pixel is static.

    The means are over the frames within ``fine_radius``, of what each has at the nearest pixel: reading between pixels
    would mix the two sides of an edge. What differs by ``fine_tolerance`` counts half, since it may be another surface,
    so edges stay nearly as sharp as they are; in the counterpart of the pixel's own segment it is the same one, and
    ``fine_tolerance_inside`` holds. Both shrink where the network and its single pixels are steady.
    """

    def __init__(
        self, field: Field, fields: Fields, same: NearCounterparts | None, full: tuple[int, int], config: FusionConfig
    ) -> None:
        """field: frame -> log disparity and weight, (1, 2, H, W), of size ``full``. fields: of the low band.

        same: of segments at size ``full``, None without any.
        """
        self._field, self._fields, self._same, self._config = field, fields, same, config
        self._grain = FrameCache(self._measure_grain, 1 + AHEAD_ITEMS)
        self._poses = None if fields.poses is None else fields.poses.resized(full)

    def __call__(self, frame: int, static: Tensor) -> Tensor:
        """Filtered log disparity, (1, 1, H, W). static: s, (1, 1, h, w) of any size."""
        here, radius = self._field(frame)[:, :1], self._config.fine_radius
        if self._poses is None or not (self._config.pose_filter and self._poses.usable(frame)):
            return self._along_flow(frame)
        offsets = range(1, radius + 1)
        along, _ = self._poses(self._field, frame, offsets, tolerance=self._tolerance(frame), reading="nearest")
        share = resize(static, (int(here.shape[-2]), int(here.shape[-1])))
        if not self._fields.has_movers(static):
            return share * along + (1 - share) * here
        moving = Targets(share.shape[-2:], (share.flatten() < _STATIC).nonzero()[:, 0])
        own = moving.of(share)
        return moving.put(along, own * moving.of(along) + (1 - own) * self._along_flow(frame, moving.pixels))

    def _along_flow(self, frame: int, pixels: Tensor | None = None) -> Tensor:
        """Of ``pixels`` (N,), flat indices, (1, 1, 1, N); without them of all, (1, 1, H, W)."""
        if not self._config.trajectory_filter:
            return self._field(frame)[:, :1]
        places, tolerance = self._fields.places(frame, self._config.fine_radius), self._tolerance(frame, pixels)
        value, _ = self._fields.along_flow(
            self._field, frame, places, tolerance=tolerance, reading="nearest", pixels=pixels
        )
        return value

    def _tolerance(self, frame: int, pixels: Tensor | None = None) -> Tolerance:
        evidence, config, grain = self._fields.evidence, self._config, self._grain(frame)
        narrow, wide = (
            evidence.narrowed(tolerance, config, grain=grain)
            for tolerance in (config.fine_tolerance, config.fine_tolerance_inside)
        )
        return narrow if self._same is None else self._same.widened(frame, narrow, wide, pixels)

    def _measure_grain(self, frame: int) -> float:
        """Spread of what single pixels differ by from a frame to the next one, or the one before the last, by sqrt 2.

        Along the flow, and read at its pixels: links, on the low band, do not see noise of single pixels.
        """
        is_last = frame + 1 >= len(self._fields.reader)
        other = max(0, frame - 1) if is_last else frame + 1
        if other == frame:
            return 0.0
        step = self._fields.steps(other)[1] if is_last else self._fields.steps(frame)[0]
        grid = pixel_grid(step)
        here, there = self._read(frame, grid), self._read(other, grid + step[:, :2])
        seen = (step[:, 2:] > 0) & (here[:, 1:] > 0) & (there[:, 1:] > 0)
        gap = (there - here)[:, :1][seen]
        return 1.48 / 2**0.5 * float((gap - gap.median()).abs().median()) if gap.numel() else 0.0

    def _read(self, frame: int, position: Tensor) -> Tensor:
        """The field at positions on the low band, (1, 2, h, w)."""
        field = self._field(frame)
        return look_up(field, at_size(position, position.shape[-2:], field.shape[-2:]), "nearest")
