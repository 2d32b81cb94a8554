"""ZoeDepth (Bhat et al., 2023): z-depth in metres.

The frame is widened by its reflection before it goes through the network, as in training, and the widened border is
cut from the result.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import torch
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.perception.frames import aspect_size, resize_frames, to_planes
from stf_depth.perception.transformers_network import TransformersNetwork
from stf_depth.types import Ambiguity, DepthMaps, Float32Array, Representation, Uint8Array

__all__ = ["ZoeDepth"]

MULTIPLE = 32
HALF = (0.5, 0.5, 0.5)


class ZoeDepthOptions(FrozenConfig):
    """short_side: network input, in pixels."""

    short_side: int = Field(384, ge=64, le=2048)


class ZoeDepth:
    """ZoeDepth at the frame's aspect ratio."""

    def __init__(self, request: BackendRequest) -> None:
        self._options = ZoeDepthOptions.of(request.options)
        self._network = TransformersNetwork(request, "ZoeDepthForDepthEstimation")
        digest = self._network.checkpoint.digest
        self.info: BackendInfo = request.info(
            digest,
            options=self._options.model_dump(mode="json"),
            representation=Representation.Z_DEPTH,
            ambiguity=Ambiguity.METRIC,
        )

    def infer(self, rgb: Uint8Array) -> DepthMaps:
        """rgb (N, H, W, 3) uint8 -> z-depth in metres (N, h, w)."""
        check_frames(rgb)
        height, width = rgb.shape[1:3]
        # The border of the published preprocessing.
        rows, columns = (int(math.sqrt(side / 2) * 3) for side in (height, width))
        wide = np.pad(rgb, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode="reflect")
        size = aspect_size(wide.shape[1], wide.shape[2], self._options.short_side, MULTIPLE)
        depth = self._network.run(to_planes(resize_frames(wide, size), HALF, HALF), _predict)
        inner = np.stack([_without_border(frame, rows / wide.shape[1], columns / wide.shape[2]) for frame in depth])
        return DepthMaps.of(inner, Representation.Z_DEPTH, Ambiguity.METRIC)


def _predict(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(model(pixels).predicted_depth)


def _without_border(depth: Float32Array, top: float, left: float) -> Float32Array:
    """The part of a map inside a border given in fractions of it, to a fraction of a pixel."""
    height, width = depth.shape
    rows, columns = max(1, round(height * (1 - 2 * top))), max(1, round(width * (1 - 2 * left)))
    y = (np.arange(rows) + 0.5) / rows * height * (1 - 2 * top) + height * top - 0.5
    x = (np.arange(columns) + 0.5) / columns * width * (1 - 2 * left) + width * left - 0.5
    grid_x, grid_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    inner = cv2.remap(depth, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(inner, np.float32)
