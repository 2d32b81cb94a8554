"""Fusion of a stream: each frame with what came before it, and with at most ``lookahead`` frames after it.

The past is one map, the running mean q along the flow, with its weight. A new frame p is brought to it by one scale and
shift, then averaged with it where flow, colour and disparity agree that both show the same surface:
q <- (w q + c) / (w + 1), c = s p + b, w = bounded weight of the past x agreement. The correction found on a coarse grid
is added to the full-size frame, which keeps its edges (recursive fusion with a gate, as CODD, arXiv 2111.09337).

On its way to the new frame q changes as the camera's motion makes it, which is solved from flow and q itself
(fusion/egomotion.py): what comes nearer would be taken for flicker, and held back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from stf_depth.config import CausalConfig
from stf_depth.errors import ShapeError
from stf_depth.fusion.boundaries import sharp_edges
from stf_depth.fusion.egomotion import agreement, between_two, camera_step
from stf_depth.fusion.prelook import offset_below
from stf_depth.fusion.reader import as_image, flow_pair, low_size
from stf_depth.fusion.resampling import fill_unknown, resize, resize_masked
from stf_depth.fusion.trajectory import checked_steps, is_inside, look_up, pixel_grid
from stf_depth.perception.base import FlowBackend
from stf_depth.types import Ambiguity, BoolArray, Float32Array, Float64Array, Uint8Array

__all__ = ["CausalFrame", "CausalFuser"]

_LEAST_SHARE = 0.1  # of a frame's own disparity, which has a zero, is left by what the past says against it
_EDGE_PX, _EDGE_STEP = 1, 0.1  # of the coarse grid, and of the nearer side


@dataclass(frozen=True)
class CausalFrame:
    """One fused frame at the size of its picture.

    disparity: (H, W) float32, in the input's unit; not below 0 unless affine. valid: (H, W) bool. confidence: (H, W)
    float32 in [0, 1]. index: position in the stream. is_reset: nothing before this frame was used.
    """

    index: int
    disparity: Float32Array
    valid: BoolArray
    confidence: Float32Array
    is_reset: bool


@dataclass(frozen=True)
class _Line:
    """c = scale p + shift."""

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, disparity: Tensor) -> Tensor:
        return self.scale * disparity + self.shift

    def relaxed(self, share: float) -> _Line:
        """Nearer to the identity by ``share``."""
        return _Line(1 + (self.scale - 1) * (1 - share), self.shift * (1 - share))


@dataclass(frozen=True)
class _Held:
    """One frame of the stream on the coarse grid, (1, 1, h, w) each, and what was given.

    corrected: c. valid: 0 or 1. fused, weight: q and the frames that it stands for. own: share of it that is left as it
    is. to_next, to_last: checked flow (1, 3, h, w) to the following and to the preceding frame, None where there is
    none. step: (4, 4), the camera's motion from the preceding frame. zero: what disparity is taken to have at infinity.
    """

    index: int
    small_rgb: Uint8Array
    full_size: tuple[int, int]
    disparity: Float32Array
    given: BoolArray
    line: _Line
    corrected: Tensor
    valid: Tensor
    fused: Tensor
    weight: Tensor
    own: Tensor
    is_reset: bool
    to_last: Tensor | None = None
    to_next: Tensor | None = None
    step: Float64Array | None = None
    zero: float | None = None


class CausalFuser:
    """Takes frames one by one and gives each back ``lookahead`` frames later.

    ambiguity: of the disparity; affine disparity is corrected by scale and shift, any other by its scale. Memory holds
    ``lookahead`` + 1 frames.
    """

    def __init__(self, config: CausalConfig, ambiguity: Ambiguity, *, flow: FlowBackend, device: str = "cpu") -> None:
        self.lookahead = config.lookahead_frames
        self._config, self._flow, self._device = config, flow, torch.device(device)
        self._is_affine = ambiguity is Ambiguity.AFFINE
        self._held: deque[_Held] = deque()
        self._last: _Held | None = None
        self._count = 0

    def push(self, rgb: Uint8Array, disparity: Float32Array, valid: BoolArray) -> list[CausalFrame]:
        """Take one frame: rgb (H, W, 3) uint8, disparity and valid (h, w); return the frames that are ready.

        Raises ShapeError when the frame is not RGB or disparity and valid differ in shape.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or disparity.shape != valid.shape or disparity.ndim != 2:
            got = (rgb.shape, disparity.shape, valid.shape)
            raise ShapeError("a frame needs colours, disparity and validity", expected="(H, W, 3), (h, w)", got=got)
        frame = self._fresh(rgb, disparity, valid)
        ready: list[CausalFrame] = []
        if self._last is not None and self._last.full_size == frame.full_size:
            frame, before = self._joined(frame, self._last)
            if self._held:
                self._held[-1] = before
        if frame.is_reset:
            ready += self.flush()
        self._held.append(frame)
        self._last = frame
        if len(self._held) > self.lookahead:
            ready.append(self._finished())
        return ready

    def flush(self) -> list[CausalFrame]:
        """Return the frames that are held; the next frame starts anew."""
        rest = [self._finished() for _ in range(len(self._held))]
        self._last = None
        return rest

    def _fresh(self, rgb: Uint8Array, disparity: Float32Array, valid: BoolArray) -> _Held:
        """The frame by itself."""
        height, width = rgb.shape[:2]
        size = low_size(height, width, self._config.low_band_long_side_px)
        small = np.asarray(cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        low, mask = resize_masked(self._tensor(disparity), self._tensor(valid.astype(np.float32)), size)
        index, self._count = self._count, self._count + 1
        return _Held(index, small, (height, width), disparity, valid, _Line(), low, mask, low, mask, 0 * mask, True)

    def _tensor(self, values: Float32Array) -> Tensor:
        finite = np.nan_to_num(np.asarray(values, np.float32), posinf=0.0, neginf=0.0)
        return torch.from_numpy(np.ascontiguousarray(finite))[None, None].to(self._device)

    def _joined(self, frame: _Held, before: _Held) -> tuple[_Held, _Held]:
        """The frame averaged with the past, and the past with its flow to the frame; the frame itself after a cut."""
        ahead, back = self._steps(before.small_rgb, frame.small_rgb)
        position = pixel_grid(back) + back[:, :2]
        past = look_up(torch.cat([before.fused, before.weight, before.valid], 1), position)
        same = back[:, 2:] * is_inside(position, past.shape[-2:])
        same = same * self._same_color(frame.small_rgb, before.small_rgb, position)
        if float(same.mean()) < self._config.reset_below:
            return frame, before
        known = same * frame.valid * (past[:, 2:] > 0.99)
        offset = self._zero(before)
        step = self._camera_step(before, ahead, back, offset)
        nearer = self._seen_from_here(past[:, :1], offset, step, position)
        line = self._line(frame.fused, nearer, known).relaxed(self._config.leak)
        corrected = line(frame.fused)
        gap = (nearer - corrected) / self._tolerance(corrected, frame.valid)
        memory, own = self._memory(gap, known, frame)
        weight = torch.clamp(past[:, 1:2], max=memory) * known * (1 - own) / (1 + gap * gap)
        fused = (weight * nearer + corrected) / (weight + 1)
        joined = replace(
            frame,
            line=line,
            step=step,
            zero=offset,
            corrected=corrected,
            fused=fused,
            weight=weight + frame.valid,
            own=own,
            is_reset=False,
            to_last=back,
        )
        return joined, replace(before, to_next=ahead)

    def _steps(self, first: Uint8Array, second: Uint8Array) -> tuple[Tensor, Tensor]:
        both = self._flow.infer(np.stack([first, second]), np.stack([second, first]))
        return checked_steps(*flow_pair(both, self._device), self._config.tolerance_px)

    def _zero(self, frame: _Held) -> float:
        """What disparity is taken to have at infinity; affine disparity does not say, and keeps the first guess."""
        if frame.zero is not None or not self._is_affine:
            return frame.zero or 0.0
        used = frame.fused[frame.valid > 0]
        return offset_below(used.cpu().numpy()) if len(used) else 0.0

    def _camera_step(self, before: _Held, ahead: Tensor, back: Tensor, zero: float) -> Float64Array:
        if not self._config.egomotion:
            return np.eye(4)
        flows = [as_image(flow[:, :2]) for flow in (ahead, back)]
        log_disparity = as_image(_log_above(before.fused, zero))
        return camera_step(log_disparity, as_image(before.valid), *flows, tolerance_px=self._config.tolerance_px)

    def _seen_from_here(self, past: Tensor, zero: float, step: Float64Array, position: Tensor) -> Tensor:
        """What disparity of the last frame, looked up at ``position``, becomes by the camera's motion.

        d' = d (R r)_z / (1 - t_z d), from d = d' / (R r + t d')_z, R and t back to the last frame.
        """
        motion, log_past = between_two(step, (past.shape[-2], past.shape[-1])), _log_above(past, zero)
        _, depth, turned = motion.project(log_past, 1, 0)
        change = torch.log((turned / (1 + turned - depth).clamp(min=0.2)).clamp(0.5, 2))
        expected, _, _ = motion.project(log_past + change, 1, 0)
        change = change * agreement(expected, position, self._config.static_tolerance_px)
        return torch.where(past > zero, zero + (past - zero) * torch.exp(change), past)

    def _same_color(self, rgb: Uint8Array, other: Uint8Array, position: Tensor) -> Tensor:
        """1 where the mean channel differs by less than the tolerance from what ``other`` has at ``position``."""
        here, there = (
            torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None].to(self._device) for image in (rgb, other)
        )
        gap = (look_up(there, position) - here).abs().mean(1, keepdim=True)
        return (gap < self._config.color_tolerance).to(here)

    def _line(self, disparity: Tensor, past: Tensor, known: Tensor) -> _Line:
        """argmin_{s, b} sum rho(s p + b - q) over known pixels, Cauchy rho, b = 0 unless affine.

        The identity where too few pixels are known.
        """
        use = known[0, 0] > 0
        # On the CPU: not every device has double precision.
        p, q = disparity[0, 0][use].cpu().double(), past[0, 0][use].cpu().double()
        if len(p) < 64:
            return _Line()
        weight = torch.ones_like(p)
        line = _Line()
        for _ in range(self._config.irls_steps):
            line = _least_squares(p, q, weight, self._is_affine)
            left = (line(p) - q).abs()
            scale = 2.4 * float(left.median()) + 1e-9 * float(q.abs().mean()) + 1e-30
            weight = 1 / (1 + (left / scale) ** 2)
        return line

    def _memory(self, gap: Tensor, known: Tensor, frame: _Held) -> tuple[float, Tensor]:
        """How many frames the past weighs, and the share of a pixel (1, 1, h, w) that is the frame's alone.

        The fewer, the smaller the median gap to the past already is. An average blurs edges by a part of a pixel: of a
        depth that is steady, the edges that are sharp stay as they are.
        """
        config, gaps = self._config, gap[known > 0]
        if not len(gaps):
            return config.memory, torch.zeros_like(gap)
        noise = config.tolerance * float(gaps.abs().median())
        restless = min(1.0, (noise / config.steady_below) ** 2)
        edges = sharp_edges(frame.fused, radius_px=_EDGE_PX, min_step=_EDGE_STEP)
        return config.memory * restless, (1 - restless**2) * edges

    def _tolerance(self, disparity: Tensor, valid: Tensor) -> Tensor:
        """The tolerated gap at each pixel: relative to disparity, never under a part of the frame's median."""
        used = disparity[valid > 0]
        if not len(used):
            return torch.ones_like(disparity)
        low, middle = (float(torch.quantile(used, share)) for share in (0.005, 0.5))
        start = low if self._is_affine else 0.0
        spread = max(middle - start, 1e-12)
        return self._config.tolerance * torch.clamp(disparity - start, min=0.25 * spread)

    def _finished(self) -> CausalFrame:
        """The oldest held frame, with what the frames behind it add."""
        frame = self._held.popleft()
        value, weight = self._with_later(frame)
        disparity, valid = resize_masked(
            self._tensor(frame.disparity), self._tensor(frame.given.astype(np.float32)), frame.full_size
        )
        correction = fill_unknown(value - frame.corrected, frame.valid)
        own = frame.line(disparity)
        fused = own + resize(correction, frame.full_size)
        if not self._is_affine:
            # Found on a coarse grid, the correction may be larger than what is far beside something near.
            fused = torch.maximum(fused, _LEAST_SHARE * own)
        fused = fused * valid
        confidence = resize(weight / (weight + 1), frame.full_size) * valid
        return CausalFrame(frame.index, _image(fused), _image(valid) > 0, _image(confidence), frame.is_reset)

    def _with_later(self, frame: _Held) -> tuple[Tensor, Tensor]:
        """The frame's mean continued along the flow through the frames that are held behind it."""
        total, weights = frame.fused * frame.weight, frame.weight
        position, alive = pixel_grid(frame.fused), torch.ones_like(frame.fused)
        flow, motion = frame.to_next, np.eye(4)
        tolerance = self._tolerance(frame.fused, frame.valid)
        for later in self._held:
            if flow is None or later.step is None:
                break
            moved, inside = look_up(flow, position), is_inside(position, flow.shape[-2:])
            position, alive = position + moved[:, :2], alive * moved[:, 2:] * inside
            found = look_up(torch.cat([later.corrected, later.valid], 1), position)
            motion = later.step @ motion
            seen = self._seen_from(frame, later, found[:, :1], motion, position)
            gap = (seen - frame.fused) / tolerance
            known = alive * (found[:, 1:] > 0.99) * frame.valid * (1 - frame.own) / (1 + gap * gap)
            total, weights = total + known * seen, weights + known
            flow = later.to_next
        return torch.where(weights > 1e-6, total / weights.clamp(min=1e-6), frame.fused), weights

    def _seen_from(self, frame: _Held, later: _Held, found: Tensor, motion: Float64Array, position: Tensor) -> Tensor:
        """What disparity of a later frame was in ``frame``, ``motion`` before."""
        zero = later.zero or 0.0
        poses = between_two(motion, (found.shape[-2], found.shape[-1]))
        expected, depth, _ = poses.project(_log_above(frame.fused, zero), 0, 1)
        change = torch.log(depth.clamp(0.5, 2)) * agreement(expected, position, self._config.static_tolerance_px)
        return torch.where(found > zero, zero + (found - zero) * torch.exp(change), found)


def _log_above(disparity: Tensor, zero: float) -> Tensor:
    above = disparity - zero
    return torch.log(torch.maximum(above, 0.01 * above.abs().median() + 1e-9))


def _least_squares(p: Tensor, q: Tensor, weight: Tensor, is_affine: bool) -> _Line:
    """argmin_{s, b} sum w (s p + b - q)^2, b = 0 unless affine; the identity where that has no positive scale."""
    if not is_affine:
        power = float((weight * p * p).sum())
        scale = float((weight * p * q).sum()) / power if power > 0 else 1.0
        return _Line(scale) if scale > 0 else _Line()
    mass = weight.sum()
    mean_p, mean_q = (weight * p).sum() / mass, (weight * q).sum() / mass
    spread = float((weight * (p - mean_p) ** 2).sum())
    if spread <= 1e-12 * float(mass) * (float(mean_p) ** 2 + 1e-30):
        return _Line(1.0, float(mean_q - mean_p))
    scale = float((weight * (p - mean_p) * (q - mean_q)).sum()) / spread
    return _Line(scale, float(mean_q) - scale * float(mean_p)) if scale > 0 else _Line()


def _image(values: Tensor) -> Float32Array:
    return np.ascontiguousarray(values[0, 0].cpu().numpy(), np.float32)
