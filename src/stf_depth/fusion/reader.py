"""Frames of a shot on the low-band grid, read once and kept while the window needs them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stf_depth.frames import nearest
from stf_depth.fusion.inputs import ShotInputs
from stf_depth.fusion.prelook import Prelook
from stf_depth.fusion.resampling import fill_unknown, resize, resize_masked
from stf_depth.perception.base import FlowBackend
from stf_depth.types import Float32Array, Frames, Role, Uint8Array

__all__ = ["FrameCache", "LowFrame", "LowReader", "as_image", "flow_pair", "low_size"]

Item = TypeVar("Item")

_OUTSIDE_PX = 1e6


class FrameCache(Generic[Item]):
    """Keeps ``capacity`` results of ``make(frame)``, those nearest to the frame that was asked for last.

    A sliding window touches frames all over it: by order of use, those would go first that are still needed. Several
    threads may ask; each result is made once, by the first that asks, while the others wait for it.
    """

    def __init__(self, make: Callable[[int], Item], capacity: int) -> None:
        self._make = make
        self._capacity = capacity
        self._items: dict[int, Future[Item]] = {}
        self._lock = threading.Lock()

    def __call__(self, frame: int) -> Item:
        """The result for ``frame``, made now if it is not kept."""
        with self._lock:
            found = self._items.get(frame)
            if found is None:
                item = self._items[frame] = Future()
                if len(self._items) > self._capacity:
                    del self._items[max(self._items, key=lambda kept: abs(kept - frame))]
        if found is not None:
            return found.result()
        try:
            item.set_result(self._make(frame))
        except BaseException as error:
            with self._lock:
                self._items.pop(frame, None)
            item.set_exception(error)
        return item.result()


@dataclass(frozen=True)
class LowFrame:
    """One frame on the low-band grid; all (1, 1, h, w) on the device.

    log_disparity: the network's. valid: 0 or 1. roles: uint8 of ``Role``. structure: log of the structure's disparity,
    in the network's unit. structure_confidence: [0, 1]. Both logs are continued into what is unknown, so that values
    read between pixels are not drawn to anything else.
    """

    log_disparity: Tensor
    valid: Tensor
    roles: Tensor
    structure: Tensor
    structure_confidence: Tensor


def low_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """(h, w) of the low-band grid: the image's aspect, its long side at most ``long_side``."""
    factor = min(1.0, long_side / max(height, width))
    return max(2, round(height * factor)), max(2, round(width * factor))


class LowReader:
    """Reads a shot's inputs frame by frame on the low-band grid (h, w); several threads may ask."""

    def __init__(
        self,
        inputs: ShotInputs,
        prelook: Prelook,
        flow: FlowBackend,
        size: tuple[int, int],
        *,
        capacity: int,
        device: str,
    ) -> None:
        self.size = size
        self._inputs = inputs
        self._logmap = prelook.logmap
        self._structure_unit = prelook.structure_unit
        self._flow = flow
        self._device = torch.device(device)
        # Stores and flow networks serve one caller at a time.
        self._reading, self._matching = threading.Lock(), threading.Lock()
        self.frame = FrameCache(self._read, capacity)
        self.rgb = FrameCache(self._read_rgb, capacity)
        self.flow = FrameCache(self._read_flow, capacity)
        self._roles = FrameCache(self._read_roles, capacity)

    def __len__(self) -> int:
        return len(self._inputs)

    def _read_rgb(self, index: int) -> np.ndarray:
        height, width = self.size
        return cv2.resize(self._input(self._inputs.rgb, index), (width, height), interpolation=cv2.INTER_AREA)

    def _read_flow(self, index: int) -> tuple[Tensor, Tensor]:
        """Flow from ``index`` to the next frame and back, each (1, 2, h, w), pixels of the low-band grid."""
        here, following = self.rgb(index), self.rgb(index + 1)
        with self._matching:
            both = self._flow.infer(np.stack([here, following]), np.stack([following, here]))
        return flow_pair(both, self._device)

    def _read(self, index: int) -> LowFrame:
        disparity, valid = resize_masked(*self.network(index), self.size)
        log_disparity = fill_unknown(self._logmap.to_log(disparity), valid)
        structure, confidence = self._read_structure(index, torch.zeros_like(valid))
        roles = self.roles(index, self.size)
        # What is triangulated in the sky is the border of what stands before it.
        confidence = confidence * (roles != int(Role.SKY))
        return LowFrame(log_disparity, valid, roles, structure, confidence)

    def network(self, index: int) -> tuple[Tensor, Tensor]:
        """The network's disparity and validity at its own size, each (1, 1, h, w)."""
        return self._pair(self._inputs.disparity, self._inputs.valid, index)

    def image(self, index: int) -> Tensor:
        """The frame at the working size, (1, 3, H, W) in [0, 1]."""
        # A copy: cached frames are read-only, which tensors cannot be.
        rgb = torch.from_numpy(self._input(self._inputs.rgb, index).copy()).to(self._device)
        return rgb.permute(2, 0, 1)[None].float() / 255

    @property
    def has_segments(self) -> bool:
        """Whether there are segments or roles."""
        return not (self._inputs.roles is None and self._inputs.segments is None)

    @property
    def has_surfaces(self) -> bool:
        """Whether there are segments of which each is one surface or thing."""
        return self._inputs.segments is not None and not self._inputs.segments_are_classes

    def segments(self, index: int, size: tuple[int, int]) -> Tensor:
        """Segment ids (roles where there are no segments) at ``size``, (1, 1, H, W) int32."""
        maps = self._inputs.roles if self._inputs.segments is None else self._inputs.segments
        ids = self._input(maps, index).astype(np.int32) if maps is not None else np.zeros(size, np.int32)
        return torch.from_numpy(nearest(ids, size))[None, None].to(self._device)

    def roles(self, index: int, size: tuple[int, int]) -> Tensor:
        """Roles at ``size``, (1, 1, H, W) uint8; UNKNOWN without any."""
        if self._inputs.roles is None:
            return torch.full((1, 1, *size), int(Role.UNKNOWN), dtype=torch.uint8, device=self._device)
        return torch.from_numpy(nearest(self._roles(index), size))[None, None].to(self._device)

    def _read_roles(self, index: int) -> Uint8Array:
        """As they are: which of them are believed takes time to find out, and is asked for each size."""
        assert self._inputs.roles is not None
        return self._input(self._inputs.roles, index).astype(np.uint8)

    def _input(self, frames: Frames, index: int) -> NDArray[Any]:
        with self._reading:
            return np.asarray(frames[index])

    def _pair(self, values: Frames, valid: Frames, index: int) -> tuple[Tensor, Tensor]:
        first = self._input(values, index).astype(np.float32)
        second = self._input(valid, index).astype(np.float32) * np.isfinite(first)
        pair = [torch.from_numpy(np.ascontiguousarray(array)) for array in (np.nan_to_num(first, posinf=0), second)]
        return pair[0][None, None].to(self._device), pair[1].float()[None, None].to(self._device)

    def _read_structure(self, index: int, nothing: Tensor) -> tuple[Tensor, Tensor]:
        maps = self._inputs.structure
        if maps is None or self._structure_unit is None:
            return nothing, nothing
        disparity, confidence = self._pair(maps.disparity, maps.confidence, index)
        usable = ((confidence > 0) & (disparity > 0)).to(disparity)
        disparity, good = resize_masked(disparity * self._structure_unit, usable, self.size)
        confidence = resize(confidence * usable, self.size) * good
        return fill_unknown(torch.log(torch.clamp(disparity, min=self._logmap.floor)), good), confidence


def flow_pair(both: Float32Array, device: torch.device) -> tuple[Tensor, Tensor]:
    """Flow and back of (2, h, w, 2), each (1, 2, h, w); what has no number leads out of the picture: it is no match."""
    finite = np.nan_to_num(both, nan=_OUTSIDE_PX, posinf=_OUTSIDE_PX, neginf=-_OUTSIDE_PX)
    moved = torch.from_numpy(np.ascontiguousarray(finite)).permute(0, 3, 1, 2).to(device)
    return moved[:1], moved[1:]


def as_image(values: Tensor) -> Float32Array:
    """(1, 1, h, w) -> (h, w), or (1, C, h, w) -> (h, w, C), in NumPy."""
    array = values[0].permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(array[..., 0] if array.shape[-1] == 1 else array, np.float32)
