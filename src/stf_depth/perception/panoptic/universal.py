"""Panoptic segmentation by Mask2Former (Cheng et al., CVPR 2022) and EoMT (Kerssies et al., CVPR 2025)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.perception.frames import IMAGENET_MEAN, IMAGENET_STD, aspect_size, resize_frames, to_planes
from stf_depth.perception.panoptic.merge import MergeOptions, merge_queries
from stf_depth.perception.roles import checkpoint_names, class_table
from stf_depth.perception.transformers_network import TransformersNetwork
from stf_depth.perception.weights import Checkpoint
from stf_depth.types import Int32Array, SegmentInfo, SegmentMaps, Uint8Array

__all__ = ["UniversalPanoptic", "input_sides", "segment_frames"]

MULTIPLE = 32
Segments = tuple[Int32Array, dict[int, SegmentInfo]]


class UniversalPanoptic:
    """Segments at the resolution of the network's input."""

    def __init__(self, request: BackendRequest) -> None:
        self._options = MergeOptions.of(request.options)
        self._network = TransformersNetwork(
            request, "Mask2FormerForUniversalSegmentation", "EomtForUniversalSegmentation"
        )
        checkpoint = self._network.checkpoint
        self._classes = network_classes(checkpoint)
        self._sides = input_sides(checkpoint, self._options)
        # EoMT's positions are learned for one square, so its frame is padded to that.
        self._square = int(checkpoint.config["image_size"]) if checkpoint.config["model_type"] == "eomt" else None
        self.info: BackendInfo = request.info(checkpoint.digest, options=self._options.model_dump(mode="json"))

    def infer(self, rgb: Uint8Array) -> SegmentMaps:
        """rgb (N, H, W, 3) uint8 -> segment ids (N, h, w), numbered frame by frame."""
        check_frames(rgb)
        if self._square is None:
            size = aspect_size(rgb.shape[1], rgb.shape[2], self._sides[0], MULTIPLE, self._sides[1])
            return segment_frames(self._network, resize_frames(rgb, size), size, self._classes, self._options, {})
        scale = self._square / max(rgb.shape[1:3])
        size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[2] * scale))
        below, right = self._square - size[0], self._square - size[1]
        frames = np.pad(resize_frames(rgb, size), ((0, 0), (0, below), (0, right), (0, 0)))
        return segment_frames(self._network, frames, size, self._classes, self._options, {})


def segment_frames(
    network: TransformersNetwork,
    frames: Uint8Array,
    size: tuple[int, int],
    classes: dict[int, SegmentInfo],
    options: MergeOptions,
    inputs: dict[str, torch.Tensor],
) -> SegmentMaps:
    """Run a mask-classification network on (N, h, w, 3) uint8; the frame fills the top left ``size`` of it."""
    mean, std = (
        tuple(network.checkpoint.preprocessing.get(key, usual))
        for key, usual in (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD))
    )

    def forward(model: Any, pixels: torch.Tensor) -> Segments:
        output = model(pixel_values=pixels, **{key: value.to(pixels.device) for key, value in inputs.items()})
        logits = output.masks_queries_logits.float()
        whole = torch.nn.functional.interpolate(logits, pixels.shape[-2:], mode="bilinear", align_corners=False)
        masks = whole[0, :, : size[0], : size[1]].sigmoid()
        return merge_queries(output.class_queries_logits[0], masks, classes, options)

    segments = network.run_each(to_planes(frames, mean, std), forward)
    return SegmentMaps(np.stack([ids for ids, _ in segments]), tuple(table for _, table in segments))


def network_classes(checkpoint: Checkpoint, names: list[str] | None = None) -> dict[int, SegmentInfo]:
    """Class number -> meaning for a checkpoint.

    Raises CheckpointError when neither its configuration nor the number of classes names them.
    """
    labels = checkpoint.config.get("id2label") or {}
    count = len(labels) or int(checkpoint.config.get("num_labels", 2))
    table, first_id = class_table(names or checkpoint_names(labels, count, checkpoint.folder))
    return {number - first_id: info for number, info in table.items()}


def input_sides(checkpoint: Checkpoint, options: MergeOptions) -> tuple[int, int]:
    """Short and longest side of the network's input, in pixels."""
    size = checkpoint.preprocessing.get("size", {})
    short = int(size.get("shortest_edge", 800)) if isinstance(size, dict) else int(size)
    longest = int(size.get("longest_edge", 1333)) if isinstance(size, dict) else 1333
    if options.short_side is None:
        return short, longest
    return options.short_side, round(longest * options.short_side / short)
