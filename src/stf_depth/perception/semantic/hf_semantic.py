"""Semantic segmentation by transformers: DeepLabV3 on MobileViT or MobileNetV2, SegFormer.

The frame keeps its aspect ratio instead of being cropped to the square that the networks were trained on: all of
them are convolutional enough to take any size, and a crop would leave the sides of a video without labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.perception.frames import IMAGENET_MEAN, IMAGENET_STD, aspect_size, resize_frames, to_planes
from stf_depth.perception.roles import checkpoint_names, class_table
from stf_depth.perception.semantic.maps import semantic_maps
from stf_depth.perception.transformers_network import TransformersNetwork
from stf_depth.types import Int32Array, SegmentMaps, Uint8Array

__all__ = ["HubSemantic"]

ARCHITECTURES = (
    "MobileViTForSemanticSegmentation",
    "MobileNetV2ForSemanticSegmentation",
    "SegformerForSemanticSegmentation",
)
MULTIPLE = 32
# What preprocessor_config.json leaves out: (mean, std, whether colours are BGR) by type of network.
USUAL = {
    "mobilevit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), True),
    "mobilenet_v2": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), False),
    "segformer": (IMAGENET_MEAN, IMAGENET_STD, False),
}


class HubSemanticOptions(FrozenConfig):
    """short_side: network input in pixels, instead of the checkpoint's own."""

    short_side: int | None = Field(None, ge=64, le=2048)


class HubSemantic:
    """A class for each pixel, at the resolution of the network's input."""

    def __init__(self, request: BackendRequest) -> None:
        options = HubSemanticOptions.of(request.options)
        self._network = TransformersNetwork(request, *ARCHITECTURES)
        checkpoint = self._network.checkpoint
        config, stated = checkpoint.config, checkpoint.preprocessing
        self._short_side = options.short_side or _short_side(stated)
        mean, std, is_bgr = USUAL[config["model_type"]]
        if stated.get("do_normalize", False):
            mean, std = tuple(stated.get("image_mean", mean)), tuple(stated.get("image_std", std))
        self._mean, self._std = mean, std
        self._is_bgr = bool(stated.get("do_flip_channel_order", is_bgr))
        labels = config.get("id2label") or {}
        names = checkpoint_names(labels, len(labels) or int(config.get("num_labels", 2)), checkpoint.folder)
        self._table, self._first_id = class_table(names)
        self.info: BackendInfo = request.info(checkpoint.digest, options=options.model_dump(mode="json"))

    def infer(self, rgb: Uint8Array) -> SegmentMaps:
        """rgb (N, H, W, 3) uint8 -> class ids (N, h, w)."""
        check_frames(rgb)
        size = aspect_size(rgb.shape[1], rgb.shape[2], self._short_side, MULTIPLE)
        frames = resize_frames(rgb[..., ::-1] if self._is_bgr else rgb, size)
        classes = self._network.run_each(to_planes(frames, self._mean, self._std), _classes)
        return semantic_maps(np.stack(classes), self._table, self._first_id)


def _classes(model: Any, pixels: torch.Tensor) -> Int32Array:
    logits = model(pixels).logits
    whole = torch.nn.functional.interpolate(logits, pixels.shape[-2:], mode="bilinear", align_corners=False)
    return np.asarray(whole[0].argmax(0).to(torch.int32).cpu().numpy(), np.int32)


def _short_side(stated: Mapping[str, Any]) -> int:
    """Side of the crop, else of the resize, that the checkpoint was used with."""
    for key in ("crop_size", "size"):
        size = stated.get(key)
        if isinstance(size, int):
            return size
        if isinstance(size, dict) and size:
            return int(size.get("shortest_edge") or size.get("height") or 512)
    return 512
