"""Depth Pro (Bochkovskii et al., ICLR 2025): z-depth in metres, and the focal length that goes with it.

1 / z = c * 2 tan(fov / 2), with c the canonical inverse depth and fov the horizontal field of view that the
network predicts. A checkpoint without the field-of-view part leaves one unknown factor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from stf_depth.config import FrozenConfig
from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.perception.frames import resize_frames, to_planes
from stf_depth.perception.transformers_network import TransformersNetwork
from stf_depth.types import Ambiguity, DepthMaps, Float32Array, Float64Array, Representation, Uint8Array

__all__ = ["DepthPro"]

HALF = (0.5, 0.5, 0.5)
# The range to which the authors' code limits inverse depth.
MIN_INVERSE, MAX_INVERSE = 1e-4, 1e4


class DepthProOptions(FrozenConfig):
    """None: the network takes one size."""


class DepthPro:
    """Depth Pro on the frame stretched to the network's square, at most as large as that."""

    def __init__(self, request: BackendRequest) -> None:
        DepthProOptions.of(request.options)
        self._network = TransformersNetwork(request, "DepthProForDepthEstimation")
        config = self._network.checkpoint.config
        self._has_fov = bool(config.get("use_fov_model", False))
        # The coarsest of the scaled images is one patch.
        self._side = round(config.get("patch_size", 384) / min(config.get("scaled_images_ratios", (0.25,))))
        self._ambiguity = Ambiguity.METRIC if self._has_fov else Ambiguity.SCALE
        self.info: BackendInfo = request.info(
            self._network.checkpoint.digest, representation=Representation.Z_DEPTH, ambiguity=self._ambiguity
        )

    def infer(self, rgb: Uint8Array) -> DepthMaps:
        """rgb (N, H, W, 3) uint8 -> z-depth (N, h, w), in metres where the field of view is predicted."""
        return self.infer_with_focal(rgb)[0]

    def infer_with_focal(self, rgb: Uint8Array) -> tuple[DepthMaps, Float64Array | None]:
        """As ``infer``, and the focal lengths (N,) in pixels of the input frames, None without field of view."""
        check_frames(rgb)
        height, width = rgb.shape[1:3]
        planes = to_planes(resize_frames(rgb, (self._side, self._side)), HALF, HALF)
        results = self._network.run_each(planes, _predict)
        tangents = [_half_tangent(fov) for _, fov in results]
        inverse = np.stack([canonical * 2 * tangent for (canonical, _), tangent in zip(results, tangents, strict=True)])
        longest = max(height, width)
        native = inverse.shape[-1]
        size = max(1, round(native * height / longest)), max(1, round(native * width / longest))
        inverse = resize_frames(inverse[..., None], size).reshape(len(rgb), *size)
        z = 1 / np.clip(inverse, MIN_INVERSE, MAX_INVERSE)
        focal_px = 0.5 * width / np.array(tangents, np.float64) if self._has_fov else None
        return DepthMaps.of(z, Representation.Z_DEPTH, self._ambiguity), focal_px


def _predict(model: Any, pixels: torch.Tensor) -> tuple[Float32Array, float | None]:
    output = model(pixels)
    fov = output.field_of_view
    return output.predicted_depth[0].float().cpu().numpy(), None if fov is None else float(fov.reshape(-1)[0])


def _half_tangent(fov_degrees: float | None) -> float:
    """tan(fov / 2), with the field of view kept between 1 and 179 degrees; 0.5 where it is unknown."""
    return 0.5 if fov_degrees is None else float(np.tan(np.deg2rad(np.clip(fov_degrees, 1, 179)) / 2))
