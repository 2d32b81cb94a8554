"""Dense inverse search (Kroeger et al., ECCV 2016), as OpenCV has it: fast on a CPU, no weights."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from stf_depth.config import FrozenConfig
from stf_depth.errors import ShapeError
from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.types import Float32Array, Uint8Array

__all__ = ["DisFlow"]

# OpenCV's pyramid and patches need some pixels; smaller frames are padded by their border.
MIN_SIDE_PX = 32


class DisOptions(FrozenConfig):
    """speed: OpenCV's preset; slower is finer."""

    speed: Literal["ultrafast", "fast", "medium"] = "medium"


class DisFlow:
    """Optical flow by dense inverse search; equal frames give exactly zero flow."""

    def __init__(self, request: BackendRequest) -> None:
        options = DisOptions.of(request.options)
        self._preset = getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{options.speed.upper()}")
        self.info: BackendInfo = request.info(f"opencv-{cv2.__version__}-dis", options=options.model_dump(mode="json"))

    def infer(self, source: Uint8Array, target: Uint8Array) -> Float32Array:
        """source, target (N, H, W, 3) uint8 -> flow_px (N, H, W, 2) from source to target (dx, dy).

        Raises ShapeError for frames that are not RGB or not of one shape.
        """
        check_frames(source)
        check_frames(target)
        if source.shape != target.shape:
            raise ShapeError("flow needs two frames of one shape", expected=source.shape, got=target.shape)
        # A fresh object for each call: the search keeps state, and results must not depend on the order of calls.
        search = cv2.DISOpticalFlow.create(self._preset)
        pairs = zip(source, target, strict=True)
        return np.stack([self._between(search, _grey(first), _grey(second)) for first, second in pairs])

    @staticmethod
    def _between(search: cv2.DISOpticalFlow, first: Uint8Array, second: Uint8Array) -> Float32Array:
        height, width = first.shape
        below, right = max(0, MIN_SIDE_PX - height), max(0, MIN_SIDE_PX - width)
        if below or right:
            first, second = (np.pad(grey, ((0, below), (0, right)), mode="edge") for grey in (first, second))
        flow = search.calc(first, second, np.zeros((*first.shape, 2), np.float32))
        return np.ascontiguousarray(flow[:height, :width], np.float32)


def _grey(rgb: Uint8Array) -> Uint8Array:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
