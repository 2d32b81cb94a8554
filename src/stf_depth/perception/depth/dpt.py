"""MiDaS DPT (Ranftl et al., ICCV 2021) at the frame's aspect ratio: disparity up to scale and shift.

The stock forward pass reshapes the tokens of a plain ViT to a square, which squashes every video. Backbone, neck
and head are run one after the other instead, with the true patch grid; on square input the result is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.perception.frames import aspect_size, resize_frames, to_planes
from stf_depth.perception.transformers_network import TransformersNetwork
from stf_depth.types import Ambiguity, DepthMaps, Representation, Uint8Array

__all__ = ["DptDepth"]

# The network halves its 16 px patches once more.
MULTIPLE = 32


class DptOptions(FrozenConfig):
    """short_side: network input, in pixels."""

    short_side: int = Field(384, ge=32, le=2048)


class DptDepth:
    """DPT with a plain ViT (dpt-large), a hybrid (dpt-hybrid) or any other backbone that transformers knows."""

    def __init__(self, request: BackendRequest) -> None:
        self._options = DptOptions.of(request.options)
        self._network = TransformersNetwork(request, "DPTForDepthEstimation")
        preprocessing = self._network.checkpoint.preprocessing
        self._mean = tuple(preprocessing.get("image_mean", (0.5, 0.5, 0.5)))
        self._std = tuple(preprocessing.get("image_std", (0.5, 0.5, 0.5)))
        self.info: BackendInfo = request.info(
            self._network.checkpoint.digest,
            options=self._options.model_dump(mode="json"),
            representation=Representation.DISPARITY,
            ambiguity=Ambiguity.AFFINE,
        )

    def infer(self, rgb: Uint8Array) -> DepthMaps:
        """rgb (N, H, W, 3) uint8 -> disparity (N, h, w), h and w multiples of the network's stride."""
        check_frames(rgb)
        size = aspect_size(rgb.shape[1], rgb.shape[2], self._options.short_side, MULTIPLE)
        planes = to_planes(resize_frames(rgb, size), self._mean, self._std)
        disparity = self._network.run(planes, dpt_forward)
        return DepthMaps.of(disparity, Representation.DISPARITY, Ambiguity.AFFINE)


def dpt_forward(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """transformers' DPTForDepthEstimation for any grid of patches: (N, 3, h, w) -> (N, h, w)."""
    if model.backbone is not None:
        return torch.as_tensor(model(pixels).predicted_depth)
    config = model.config
    hooks = config.backbone_out_indices
    features: list[torch.Tensor] = []
    if config.is_hybrid:
        embedding = model.dpt.embeddings(pixels, interpolate_pos_encoding=True)
        # Two maps come from the convolutional stages, the others from the transformer.
        features, hooks = list(embedding.intermediate_activations), hooks[2:]
    else:
        embedding = model.dpt.embeddings(pixels)
    tokens = embedding.last_hidden_states
    for index, layer in enumerate(model.dpt.encoder.layer):
        tokens = layer(tokens)
        if index in hooks:
            features.append(tokens)
    grid = (pixels.shape[-2] // config.patch_size, pixels.shape[-1] // config.patch_size)
    return torch.as_tensor(model.head(model.neck(features, *grid)))
