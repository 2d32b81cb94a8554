"""DeepLabV3 (Chen et al., 2017) of torchvision, with the classes of Pascal VOC."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.perception.device import running_on
from stf_depth.perception.frames import IMAGENET_MEAN, IMAGENET_STD, aspect_size, resize_frames, to_planes
from stf_depth.perception.roles import checkpoint_names, class_table
from stf_depth.perception.semantic.maps import semantic_maps
from stf_depth.perception.table import TABLE
from stf_depth.perception.torchvision_network import State, TorchvisionNetwork
from stf_depth.types import SegmentMaps, Uint8Array

__all__ = ["TorchvisionDeepLab"]

# The output stride of the backbones.
MULTIPLE = 8
LAST_LAYER = "classifier.4.weight"


class DeepLabOptions(FrozenConfig):
    """short_side: network input, in pixels."""

    short_side: int = Field(520, ge=64, le=2048)


class TorchvisionDeepLab:
    """A class for each pixel, at the resolution of the network's input."""

    def __init__(self, request: BackendRequest) -> None:
        self._options = DeepLabOptions.of(request.options)
        self._builder = TABLE["semantic"][request.name.partition("?")[0]].weights
        self._network = TorchvisionNetwork(request, self._builder, self._empty)
        self.info: BackendInfo = request.info(self._network.digest, options=self._options.model_dump(mode="json"))

    def _empty(self, state: State) -> Any:
        from torchvision.models import get_model

        classes = len(state[LAST_LAYER])
        has_auxiliary = any(key.startswith("aux_classifier.") for key in state)
        return get_model(
            self._builder, weights=None, weights_backbone=None, num_classes=classes, aux_loss=has_auxiliary
        )

    def infer(self, rgb: Uint8Array) -> SegmentMaps:
        """rgb (N, H, W, 3) uint8 -> class ids (N, h, w), 0 is the background."""
        check_frames(rgb)
        size = aspect_size(rgb.shape[1], rgb.shape[2], self._options.short_side, MULTIPLE)
        planes = to_planes(resize_frames(rgb, size), IMAGENET_MEAN, IMAGENET_STD)
        network = self._network
        model = network.model
        names = checkpoint_names(None, len(model.classifier[-1].weight), network.path)
        table, first_id = class_table(names)
        with running_on(network.device, network.precision, network.name):
            classes = [model(torch.from_numpy(plane[None]).to(network.device))["out"][0].argmax(0) for plane in planes]
        return semantic_maps(np.stack([frame.cpu().numpy().astype(np.int32) for frame in classes]), table, first_id)
