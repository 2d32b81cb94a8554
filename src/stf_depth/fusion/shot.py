"""Fusion of one shot: a first pass over small facts and a joint solve, then a sliding window."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from stf_depth.alignment.joint import Alignment, ShotAligner
from stf_depth.alignment.links import LinkSampler
from stf_depth.config import AlignmentConfig, FusionConfig
from stf_depth.errors import ShapeError, SpecError
from stf_depth.fusion.boundaries import snap_to_segments
from stf_depth.fusion.egomotion import Egomotion
from stf_depth.fusion.evidence import confidence_of, confidence_of_input
from stf_depth.fusion.fields import Fields
from stf_depth.fusion.fine import FineFilter
from stf_depth.fusion.inputs import FusedChunk, ShotInputs
from stf_depth.fusion.matching import NearCounterparts
from stf_depth.fusion.movers import with_believed_movers
from stf_depth.fusion.prelook import look_ahead
from stf_depth.fusion.reader import FrameCache, LowReader, as_image, low_size
from stf_depth.fusion.resampling import fill_unknown, resize, resize_masked
from stf_depth.fusion.semantic import Labels
from stf_depth.fusion.sky import has_steady_sky, leave_to_sharp_edges, push_sky_back, with_believed_sky
from stf_depth.fusion.snapping import Snap, snap_of, voted_along_flow
from stf_depth.parallel import AHEAD_ITEMS, SHORT_STEP_THREADS, delayed, mapped_ahead, thread_pool
from stf_depth.perception.base import FlowBackend
from stf_depth.types import BoolArray, Float32Array, Role

__all__ = ["HasFusion", "fuse_shot"]

Fused = tuple[Float32Array, BoolArray, Float32Array]


class _LowBand(NamedTuple):
    """What a frame's low band says, (1, 1, h, w): correction of log disparity, confidence, and how far it is static."""

    correction: Tensor
    confidence: Tensor
    static: Tensor


class HasFusion(Protocol):
    """Any configuration with an alignment and a fusion section, such as RunConfig."""

    @property
    def alignment(self) -> AlignmentConfig: ...

    @property
    def fusion(self) -> FusionConfig: ...


def fuse_shot(
    inputs: ShotInputs,
    config: HasFusion,
    *,
    flow: FlowBackend | None = None,
    device: str = "cpu",
    start: int = 0,
) -> Iterator[FusedChunk]:
    """Fuse the per-frame disparity of one shot; chunks come in the order of the frames and cover each once.

    Memory is bounded by the window, not by the length of the shot; inputs are read frame by frame. ``mode`` ``flow``
    uses neither camera nor structure, ``none`` returns the input at the working size. flow: DIS when None. start: the
    first frame that is wanted; the frames from there on are the same bytes whatever it is.

    Raises ShapeError when the inputs have different lengths.
    """
    _check(inputs)
    return _Shot(inputs, config, flow or _default_flow(), device).chunks(start)


def _check(inputs: ShotInputs) -> None:
    count = len(inputs.rgb)
    parts = {"disparity": inputs.disparity, "valid": inputs.valid, "roles": inputs.roles, "segments": inputs.segments}
    parts |= {"camera": inputs.camera, "structure": inputs.structure and inputs.structure.disparity}  # type: ignore[dict-item]
    for name, part in parts.items():
        if part is not None and len(part) != count:
            raise ShapeError("inputs of a shot must have one length", where=name, expected=count, got=len(part))


def _default_flow() -> FlowBackend:
    from stf_depth.perception.registry import create

    backend = create("flow", "dis")
    if backend is None:
        raise SpecError("no flow backend of that name", where="dis")
    return backend


@contextmanager
def _frame_threads(device: str) -> Iterator[Executor]:
    """Threads that each work on a frame, on a CPU with one thread of PyTorch each; for a GPU one is enough.

    On a CPU the caller's has one too: it would wait for threads that are busy.
    """
    before = torch.get_num_threads()
    on_cpu = torch.device(device).type == "cpu"
    alone = partial(torch.set_num_threads, 1) if on_cpu else None
    try:
        if alone is not None:
            alone()
        with thread_pool(most=SHORT_STEP_THREADS if on_cpu else 1, initializer=alone) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)  # what later threads start with


class _Shot:
    def __init__(self, inputs: ShotInputs, config: HasFusion, flow: FlowBackend, device: str) -> None:
        self.align, self.fuse = config.alignment, config.fusion
        intrinsics = None if inputs.camera is None else inputs.camera.intrinsics
        if self.fuse.mode != "full":
            inputs = replace(inputs, camera=None, structure=None)
        inputs = with_believed_sky(inputs, self.fuse)
        use_structure = inputs.camera is not None and inputs.camera.is_reliable
        self.prelook = look_ahead(inputs, use_structure=use_structure)
        believed = with_believed_movers(inputs, self.fuse, self.prelook)
        if believed is not inputs:
            inputs, self.prelook = believed, look_ahead(believed, use_structure=use_structure)
        self.inputs, self.device = inputs, device
        self.has_steady_sky = self.fuse.mode != "none" and has_steady_sky(inputs)
        self.full = (int(inputs.rgb.shape[1]), int(inputs.rgb.shape[2]))
        self._snap_radius_px = max(1, round(self.fuse.snap_radius * max(self.full)))
        size = low_size(*self.full, self.fuse.low_band_long_side_px)
        window = self.fuse.window_frames() + AHEAD_ITEMS
        self.reader = LowReader(inputs, self.prelook, flow, size, capacity=window, device=device)
        self._has_labels = self.fuse.mode != "none" and self.reader.has_segments
        self.fields = Fields(
            self.reader,
            self.prelook,
            inputs.camera,
            self.align,
            self.fuse,
            intrinsics=intrinsics,
            window=window,
        )

        self.labels = Labels(self.reader, self.fields.places, self.full, self.fuse)
        near = self.fuse.edge_frames() + self.fuse.fine_radius + 3 * (AHEAD_ITEMS + 1)
        self.low_band = FrameCache(self._low_band, near)
        self.plain, self.snaps = FrameCache(self._plain, near), FrameCache(self._snap, near)
        self.segments = FrameCache(self.labels.segments, near)
        self.same = NearCounterparts(self.segments, self.fields.near, near)
        self.edged = FrameCache(self._edged, 2 * self.fuse.fine_radius + 1 + 2 * (AHEAD_ITEMS + 1))
        surfaces = self.same if self.reader.has_surfaces else None
        self.fine = FineFilter(self.edged, self.fields, surfaces, self.full, self.fuse)

    def chunks(self, first: int) -> Iterator[FusedChunk]:
        with _frame_threads(self.device) as pool:
            if self.fuse.mode != "none":
                self.fields.use(self._align(pool))
            start, ambiguity = first, self.prelook.logmap.ambiguity
            fused = mapped_ahead(self._fused, self._prepared(first, pool), pool, ahead=AHEAD_ITEMS)
            while frames := list(itertools.islice(fused, self.fuse.chunk_frames)):
                disparity, valid, confidence = (np.stack(part) for part in zip(*frames, strict=True))
                yield FusedChunk(start, disparity, valid, confidence, ambiguity)
                start += len(frames)

    def _prepared(self, first: int, pool: Executor) -> Iterator[int]:
        """Frames from ``first`` on, each when what it needs of later ones is made: no thread waits for another's."""
        beside, around, count = self.fuse.fine_radius, self.fuse.edge_frames(), len(self.inputs)
        snapped = mapped_ahead(self._snapped, range(max(0, first - around), count), pool, ahead=AHEAD_ITEMS)
        wanted = (frame for frame in delayed(snapped, around - beside) if frame >= first - beside)
        edged = mapped_ahead(self._with_edged, wanted, pool, ahead=AHEAD_ITEMS)
        return (frame for frame in delayed(edged, beside) if frame >= first)

    def _snapped(self, frame: int) -> int:
        self.snaps(frame) if self._snaps_edges() else self.plain(frame)
        return frame

    def _with_edged(self, frame: int) -> int:
        self.edged(frame)
        return frame

    def _align(self, pool: Executor) -> Alignment:
        height, width = self.reader.size
        align, change = self.align, self.fields.expected_change
        sampler = LinkSampler(width, height, align.sample_columns, align.spans, align.tolerance_px, change)
        aligner = ShotAligner(len(self.inputs), width / height, align)
        for frame in mapped_ahead(self._ready, range(len(self.inputs)), pool, ahead=AHEAD_ITEMS):
            self._sample(frame, sampler)
            aligner.take(sampler, frame + 1)
        return aligner.alignment()

    def _ready(self, frame: int) -> int:
        """Have what ``_sample`` needs made, ahead of it."""
        self.reader.frame(frame)
        if frame:
            self.reader.flow(frame - 1)
        return frame

    def _sample(self, frame: int, sampler: LinkSampler) -> None:
        low = self.reader.frame(frame)
        weight = low.valid * (1 - 0.8 * (low.roles == Role.MOVER).to(low.valid))
        if not self.has_steady_sky:
            weight = weight * (low.roles != Role.SKY)
        flows = [as_image(part) for part in self.reader.flow(frame - 1)] if frame else []
        if self.fields.egomotion is not None and frame:
            self._follow_camera(self.fields.egomotion, frame, flows)
        distance = torch.where(low.structure_confidence > 0.2, low.structure, low.log_disparity)
        forward_px, backward_px = flows or (None, None)
        sampler.push(as_image(low.log_disparity), as_image(weight), forward_px, backward_px, as_image(distance))
        sampler.anchor(as_image(low.structure), as_image(low.structure_confidence))

    def _follow_camera(self, motion: Egomotion, frame: int, flows: Sequence[Float32Array]) -> None:
        poses, before = self.fields.poses, self.reader.frame(frame - 1)
        if poses is not None and poses.usable(frame - 1) and poses.usable(frame):
            motion.take(frame, poses.step(frame - 1, frame))
            return
        moves = (before.roles == Role.MOVER) | (before.roles == Role.SKY)
        weight = before.valid * (~moves).to(before.valid)
        motion.push(frame, as_image(before.log_disparity), as_image(weight), flows[0], flows[1])

    def _fused(self, frame: int) -> Fused:
        """The full-size input with the low band's correction, its edges and sky moved to their segments."""
        logmap, low = self.prelook.logmap, self.low_band(frame)
        disparity, valid = resize_masked(*self.reader.network(frame), self.full)
        value, sky = self._steadied(frame), self._sky(frame, disparity)
        if sky is None:
            untouched = value == self.plain(frame)[:, :1]
            corrected = logmap.corrected(disparity, resize(low.correction, self.full))
            fused = torch.where(untouched, corrected, logmap.from_log(value))
        else:
            fused = logmap.from_log(push_sky_back(value, sky, logmap.floor))
        return (
            as_image(fused * valid),
            as_image(valid) > 0,
            as_image(resize(low.confidence, self.full) * valid * self.inputs.trust).clip(0, 1),
        )

    def _plain(self, frame: int) -> Tensor:
        """The network's log disparity at full size with the low band's correction, and validity, (1, 2, H, W)."""
        disparity, valid = resize_masked(*self.reader.network(frame), self.full)
        wide = resize(self.low_band(frame).correction, self.full)
        return torch.cat([fill_unknown(self.prelook.logmap.to_log(disparity), valid) + wide, valid], 1)

    def _low_band(self, frame: int) -> _LowBand:
        """The correction is continued where the low band has no depth."""
        low = self.reader.frame(frame)
        if self.fuse.mode == "none":
            return _LowBand(torch.zeros_like(low.valid), low.valid, low.valid)
        evidence = self.fields.evidence
        if evidence.strength == 0:
            return _LowBand(torch.zeros_like(low.valid), confidence_of_input(low), low.valid)
        value, weight, static = self.fields.fused(frame)
        correction = (value - low.log_disparity) * evidence.strength
        return _LowBand(fill_unknown(correction, low.valid), confidence_of(value, weight, low, evidence), static)

    def _steadied(self, frame: int) -> Tensor:
        edged = self.edged(frame)[:, :1]
        strength = self.fields.evidence.strength
        if not self.fuse.fine_filter or self.fuse.mode == "none" or strength == 0:
            return edged
        return edged + strength * (self.fine(frame, self.low_band(frame).static) - edged)

    def _edged(self, frame: int) -> Tensor:
        plain = self.plain(frame)
        return torch.cat([self._with_edges(frame, plain[:, :1]), plain[:, 1:]], 1)

    def _with_edges(self, frame: int, value: Tensor) -> Tensor:
        if not self._snaps_edges():
            return value
        places = self.fields.places(frame, self.fuse.snap_reach)
        return value + voted_along_flow(self.snaps, self.same, frame, places)

    def _snaps_edges(self) -> bool:
        return self._has_labels and self.fuse.snap_boundaries and self.fields.evidence.strength > 0

    def _sky(self, frame: int, disparity: Tensor) -> Tensor | None:
        """1 where there is sky, (1, 1, H, W); None where there is none or the stage is off.

        disparity: the network's, 0 where it is unknown: that counts as far, as sky is to a sensor, and what lies beside
        it as solid.
        """
        if not (self._has_labels and self.fuse.sky):
            return None
        sky = self.labels.sky(frame, self.reader.image(frame))
        if sky is None or not self.has_steady_sky:
            return sky
        return leave_to_sharp_edges(sky, disparity, radius_px=2 + self._snap_radius_px)

    def _snap(self, frame: int) -> Snap:
        """What moving the frame's edges to its own segments adds to ``_plain``."""
        fuse = self.fuse
        value, valid = self.plain(frame).chunk(2, 1)
        # Pixels without depth belong to no segment: nothing is continued from them.
        labels = self.segments(frame)
        segments = torch.where(valid > 0, labels, torch.zeros_like(labels))
        image, contrast, support = self.reader.image(frame), fuse.snap_contrast, fuse.snap_support
        radius = self._snap_radius_px
        snapped = snap_to_segments(value, segments, image, radius_px=radius, min_contrast=contrast, min_support=support)
        return snap_of(snapped - value, self.reader.size)
