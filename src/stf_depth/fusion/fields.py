"""The chain from a frame's inputs to its fused low band, each stage kept for the frames of the window."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from stf_depth.alignment.corrections import MAX_SHIFT_TERM, Corrections
from stf_depth.alignment.joint import Alignment
from stf_depth.config import AlignmentConfig, FusionConfig
from stf_depth.fusion.egomotion import Egomotion, change_along
from stf_depth.fusion.evidence import Evidence, weigh_evidence
from stf_depth.fusion.matching import SegmentMatches
from stf_depth.fusion.planes import flatten_planes
from stf_depth.fusion.poses import PoseFilter
from stf_depth.fusion.prelook import Prelook
from stf_depth.fusion.reader import FrameCache, LowReader
from stf_depth.fusion.structure import belief, bend_to_structure, blend_structure, contradiction_gap
from stf_depth.fusion.trajectory import (
    Change,
    Field,
    Place,
    Reading,
    Tolerance,
    around,
    checked_steps,
    look_up,
    pixel_grid,
    trajectory_filter,
)
from stf_depth.types import CameraPath, Float32Array, Intrinsics, MotionKind, Role

__all__ = ["Fields", "over_pixels"]

_ON_THE_SPOT = (MotionKind.STATIC, MotionKind.ROTATION, MotionKind.ZOOM)  # nothing comes nearer


class Fields:
    """Fields of a frame, (1, 2, h, w): log disparity and weight.

    ``aligned``: the network's with its correction. ``blended``: bent to the structure and blended with it.
    ``filtered``: after the temporal filters.
    """

    def __init__(
        self,
        reader: LowReader,
        prelook: Prelook,
        camera: CameraPath | None,
        align: AlignmentConfig,
        fuse: FusionConfig,
        *,
        intrinsics: Intrinsics | None,
        window: int,
    ) -> None:
        """intrinsics: of the frames, where known without a path too. window: how many frames of each stage are kept."""
        self.reader = reader
        self.fuse = fuse
        self.corrections: Corrections | None = None
        self.level = 0.0
        self.evidence = Evidence()
        tolerance = align.tolerance_px
        self.steps = FrameCache(lambda frame: checked_steps(*reader.flow(frame), tolerance), window)
        self._reach = max(fuse.snap_reach, fuse.fine_radius)
        # Of a frame's own, from its low band to its filter at full size: large, and not asked for by its neighbours.
        own = window // 2
        self.near = FrameCache(lambda frame: around(self.steps, frame, len(reader), self._reach), own)
        self._changes: FrameCache[dict[int, Tensor]] = FrameCache(lambda _: {}, own)
        self.has_structure = prelook.structure_unit is not None
        self._same: SegmentMatches | None = None
        if reader.has_surfaces:
            self._same = SegmentMatches(lambda frame: reader.segments(frame, reader.size), window)
        self.poses: PoseFilter | None = None
        if camera is not None and prelook.structure_unit is not None:
            self.poses = PoseFilter.along(camera, prelook.structure_unit, reader.size)
        stays = camera is not None and camera.kind in _ON_THE_SPOT
        is_known = self.poses is not None and all(map(self.poses.usable, range(len(reader))))
        is_on = fuse.egomotion and fuse.mode != "none" and not (is_known or stays)
        self.egomotion = Egomotion(len(reader), reader.size, tolerance, intrinsics) if is_on else None
        self.aligned = FrameCache(self._aligned, window)
        self.gap = FrameCache(self._gap, window)
        self.blended = FrameCache(self._blended, window)
        self._passes = [self.blended]
        for offsets in fuse.pose_offsets[:-1]:
            self._passes.append(FrameCache(self._one_pass(self._passes[-1], offsets), window))

    def use(self, alignment: Alignment) -> None:
        """Take the alignment of the shot, and decide from its residuals how much there is to gain."""
        self.evidence = weigh_evidence(alignment, self.fuse)
        self.corrections = alignment.linked.towards(alignment.anchored, self.evidence.anchored)
        self.level = alignment.level

    def _aligned(self, frame: int) -> Tensor:
        """Corrected log disparity and its weight."""
        low = self.reader.frame(frame)
        return torch.cat([low.log_disparity + self._correction(frame, low.log_disparity), low.valid], 1)

    def fused(self, frame: int) -> tuple[Tensor, Tensor, Tensor]:
        """The fused low band of a frame, the weight behind it and what of it is static, each (1, 1, h, w)."""
        poses = self._filtering_poses(frame)
        if poses is None:
            value, weight = self._along_flow(frame)
            return value, weight, torch.zeros_like(value)
        value, weight = self._along_poses(poses, self._passes[-1], frame, self.fuse.pose_offsets[-1])
        static = self._static(frame, value)
        if not self.has_movers(static):
            return value, weight * static, static
        moving, moving_weight = self._along_flow(frame)
        value, weight = static * value + (1 - static) * moving, static * weight + (1 - static) * moving_weight
        return value, weight, static

    def has_movers(self, static: Tensor) -> bool:
        """Whether so much of a frame moves by itself that following its flow pays."""
        return self.fuse.trajectory_filter and float(static.mean()) <= 1 - self.fuse.moving_share

    def _filtering_poses(self, frame: int) -> PoseFilter | None:
        """The poses, where the filter along them is on and may be used for the frame."""
        is_on = self.fuse.pose_filter and bool(self.fuse.pose_offsets)
        return self.poses if self.poses is not None and is_on and self.poses.usable(frame) else None

    def _along_flow(self, frame: int) -> tuple[Tensor, Tensor]:
        if not self.fuse.trajectory_filter:
            field = self.blended(frame)
            return field[:, :1], field[:, 1:]
        tolerance = self._tolerance(frame, self.fuse.trajectory_tolerance)
        places = self.places(frame, self.fuse.trajectory_radius)
        return self.along_flow(self.blended, frame, places, tolerance=tolerance)

    def places(self, frame: int, reach: int) -> list[Place]:
        """Where the frame's pixels are in the frames within ``reach``: ``around``, of which the nearest are kept."""
        near = [place for place in self.near(frame) if abs(place.other - frame) <= reach]
        return near if reach <= self._reach else around(self.steps, frame, len(self.reader), reach, near)

    def along_flow(
        self,
        field: Field,
        frame: int,
        places: Iterable[Place],
        *,
        tolerance: Tolerance,
        reading: Reading = "bilinear",
        pixels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``trajectory_filter`` of a field of any size, the change of distance taken off."""
        change = self._change(frame)
        return trajectory_filter(
            field, frame, places, tolerance=tolerance, change=change, reading=reading, pixels=pixels
        )

    def expected_change(self, frame: int, other: int, xy_px: Float32Array, log_disparity: Float32Array) -> Float32Array:
        """By how much log disparity of points of ``frame`` grows on the way to ``other``: see ``PoseFilter``."""
        motion = self._motion(frame, other)
        if motion is None:
            return np.zeros(len(xy_px), np.float32)
        return motion.expected_change(frame, other, xy_px, log_disparity)

    def _motion(self, frame: int, other: int) -> PoseFilter | None:
        """The solved poses where both frames have one, else those from frame to frame."""
        if self.poses is not None and self.poses.usable(frame) and self.poses.usable(other):
            return self.poses
        return None if self.egomotion is None else self.egomotion.poses

    def _change(self, frame: int) -> Change | None:
        if self.poses is None and self.egomotion is None:
            return None
        low = self.reader.frame(frame)
        stays = (low.roles != int(Role.MOVER)).to(low.log_disparity)
        least_px, known = self.fuse.static_tolerance_px, self._changes(frame)

        def change(other: int, position: Tensor) -> Tensor:
            if other in known:
                return known[other]
            motion = self._motion(frame, other)
            if motion is None:
                return torch.zeros_like(stays)
            found = stays * change_along(motion, low.log_disparity, frame, other, position, least_px)
            if abs(other - frame) <= self._reach:  # what the filter at full size asks for again
                known[other] = found
            return found

        return change

    def _along_poses(
        self, poses: PoseFilter, field: FrameCache[Tensor], frame: int, offsets: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        tolerance = self._tolerance(frame, self.fuse.pose_tolerance)
        if self._same is None:
            return poses(field, frame, offsets, tolerance=tolerance)
        rests = self.reader.frame(frame).roles != int(Role.MOVER)
        inside = self.evidence.narrowed(self.fuse.pose_tolerance_inside, self.fuse)
        wide = torch.where(rests, tolerance.clamp(min=inside), tolerance)
        return poses(field, frame, offsets, tolerance=self._same.widened(frame, tolerance, wide))

    def _tolerance(self, frame: int, least: float) -> Tensor:
        """The filters' tolerance, (1, 1, h, w): no wider for movers, whose distance does change."""
        moves = self.reader.frame(frame).roles == int(Role.MOVER)
        narrow, wide = self.evidence.narrowed(least, self.fuse), self.evidence.tolerance(least, self.fuse)
        return torch.where(moves, narrow, wide)

    def _static(self, frame: int, value: Tensor) -> Tensor:
        """1 where measured flow is what the camera's motion makes of a rigid scene, 0 where it is not, (1, 1, h, w)."""
        if self.poses is None:
            return torch.zeros_like(value)
        static = torch.ones_like(value)
        for other, flow in self._beside(frame):
            if self.poses.usable(other):
                position, _, _ = self.poses.project(value, frame, other)
                gap = ((position - pixel_grid(value) - flow[:, :2]) ** 2).sum(1, keepdim=True)
                limit = self.fuse.static_tolerance_px**2 * (1 + 0.01 * (flow[:, :2] ** 2).sum(1, keepdim=True))
                static = torch.minimum(static, torch.where(flow[:, 2:] > 0, 1 / (1 + (gap / limit) ** 2), 1.0))
        low = self.reader.frame(frame)
        # Flow is often wrong on plain surfaces; what was triangulated well does not move.
        static = torch.maximum(static, (2 * low.structure_confidence).clamp(max=1) * self._belief(frame))
        return static * (1 - 0.5 * (low.roles == int(Role.MOVER)).to(value))

    def _beside(self, frame: int) -> list[tuple[int, Tensor]]:
        after = [(frame + 1, self.steps(frame)[0])] if frame + 1 < len(self.reader) else []
        before = [(frame - 1, self.steps(frame - 1)[1])] if frame > 0 else []
        return after + before

    def _one_pass(self, field: FrameCache[Tensor], offsets: tuple[int, ...]) -> Callable[[int], Tensor]:
        def run(frame: int) -> Tensor:
            poses = self._filtering_poses(frame)
            if poses is None:
                return field(frame)
            value, _ = self._along_poses(poses, field, frame, offsets)
            return torch.cat([value, field(frame)[:, 1:]], 1)

        return run

    def _blended(self, frame: int) -> Tensor:
        field = self._with_structure(frame)
        low = self.reader.frame(frame)
        if not self.fuse.planes or not bool((low.roles > 0).any()):
            return field
        segments = self.reader.segments(frame, self.reader.size)
        flat = flatten_planes(field, segments, low.roles, tolerance=self.fuse.plane_tolerance)
        return torch.cat([flat, field[:, 1:]], 1)

    def _belief(self, frame: int) -> Tensor:
        """1, less where the network contradicts the structure, (1, 1, h, w)."""
        return belief(self.gap(frame), self.evidence.contradiction)

    def _gap(self, frame: int) -> Tensor:
        low, aligned = self.reader.frame(frame), self.aligned(frame)
        return contradiction_gap(aligned[:, :1], aligned[:, 1:], low.structure, low.structure_confidence, self.fuse)

    def _with_structure(self, frame: int) -> Tensor:
        aligned = self.aligned(frame)
        if not (self.has_structure and self.fuse.structure and self.evidence.structure_gain > 0):
            return aligned
        low = self.reader.frame(frame)
        value, valid = aligned[:, :1], aligned[:, 1:]
        believed = self._belief(frame)
        weight = self.evidence.structure_weight(low.structure_confidence, self.fuse)
        spread = max(self.fuse.structure_spread, 2.5 * self.evidence.network_noise)
        # A mean needs no more weight than 1: a large gain would lift what is hardly believed above the damping.
        cells, damping = self.fuse.structure_cells, self.fuse.structure_damping
        share = believed * weight / (weight + self.fuse.network_trust)
        bent = bend_to_structure(value, valid, low.structure, share, spread=spread, cells=cells, damping=damping)
        value = value + self.evidence.bend_share(self.fuse) * (bent - value)
        return torch.cat(blend_structure(value, valid, low.structure, believed * weight, self.fuse.network_trust), 1)

    def _correction(self, frame: int, log_disparity: Tensor) -> Tensor:
        found = self.corrections
        if found is None:
            return torch.zeros_like(log_disparity)
        grid = torch.from_numpy(found.grid[frame])[None, None].to(log_disparity)
        wide = over_pixels(grid, log_disparity)
        term = torch.clamp(torch.exp(self.level - log_disparity), max=MAX_SHIFT_TERM)
        return wide + float(found.log_scale[frame]) + float(found.shift[frame]) * term


def over_pixels(grid: Tensor, like: Tensor) -> Tensor:
    """Handles (1, 1, rows, columns) between the edges of the picture, bilinear at the pixels of (1, 1, h, w)."""
    # The edges lie half a pixel outside the outermost pixels' centres.
    (rows, columns), (height, width) = grid.shape[-2:], like.shape[-2:]
    x, y = (pixel_grid(like) + 0.5).chunk(2, 1)
    return look_up(grid, torch.cat([x * ((columns - 1) / width), y * ((rows - 1) / height)], 1))
