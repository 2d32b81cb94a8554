"""Depth Anything V1 and V2 (Yang et al., CVPR 2024 and NeurIPS 2024).

The relative checkpoints give disparity up to scale and shift, the metric ones z-depth in metres; the checkpoint's
configuration says which it is.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.perception.frames import IMAGENET_MEAN, IMAGENET_STD, aspect_size, resize_frames, to_planes
from stf_depth.perception.transformers_network import TransformersNetwork
from stf_depth.types import Ambiguity, DepthMaps, Representation, Uint8Array

__all__ = ["DepthAnything"]


class DepthAnythingOptions(FrozenConfig):
    """short_side: network input, in pixels."""

    short_side: int = Field(518, ge=28, le=2072)


class DepthAnything:
    """Depth Anything at the frame's aspect ratio."""

    def __init__(self, request: BackendRequest) -> None:
        self._options = DepthAnythingOptions.of(request.options)
        self._network = TransformersNetwork(request, "DepthAnythingForDepthEstimation")
        config = self._network.checkpoint.config
        self._multiple = int(config.get("patch_size", 14))
        is_metric = config.get("depth_estimation_type", "relative") == "metric"
        self._meaning = (
            (Representation.Z_DEPTH, Ambiguity.METRIC) if is_metric else (Representation.DISPARITY, Ambiguity.AFFINE)
        )
        self.info: BackendInfo = request.info(
            self._network.checkpoint.digest,
            options=self._options.model_dump(mode="json"),
            representation=self._meaning[0],
            ambiguity=self._meaning[1],
        )

    def infer(self, rgb: Uint8Array) -> DepthMaps:
        """rgb (N, H, W, 3) uint8 -> disparity, or z-depth in metres, (N, h, w) at the network's input size."""
        check_frames(rgb)
        size = aspect_size(rgb.shape[1], rgb.shape[2], self._options.short_side, self._multiple)
        planes = to_planes(resize_frames(rgb, size), IMAGENET_MEAN, IMAGENET_STD)
        return DepthMaps.of(self._network.run(planes, _predict), *self._meaning)


def _predict(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(model(pixels).predicted_depth)
