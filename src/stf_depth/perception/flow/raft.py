"""RAFT (Teed and Deng, ECCV 2020) of torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.errors import ShapeError
from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.perception.device import running_on
from stf_depth.perception.frames import to_planes
from stf_depth.perception.table import TABLE
from stf_depth.perception.torchvision_network import State, TorchvisionNetwork
from stf_depth.types import Float32Array, Uint8Array

__all__ = ["RaftFlow"]

# Frames are padded by their border to this multiple, and to a size that the correlation pyramid can halve thrice.
MULTIPLE = 8
MIN_SIDE_PX = 128


class RaftOptions(FrozenConfig):
    """updates: number of refinements."""

    updates: int = Field(12, ge=1, le=64)


class RaftFlow:
    """Optical flow by RAFT, at the frames' own resolution."""

    def __init__(self, request: BackendRequest) -> None:
        self._options = RaftOptions.of(request.options)
        self._builder = TABLE["flow"][request.name.partition("?")[0]].weights
        self._network = TorchvisionNetwork(request, self._builder, self._empty)
        self.info: BackendInfo = request.info(self._network.digest, options=self._options.model_dump(mode="json"))

    def _empty(self, _state: State) -> Any:
        from torchvision.models import get_model

        return get_model(self._builder, weights=None)

    def infer(self, source: Uint8Array, target: Uint8Array) -> Float32Array:
        """source, target (N, H, W, 3) uint8 -> flow_px (N, H, W, 2) from source to target (dx, dy).

        Raises ShapeError for frames that are not RGB or not of one shape.
        """
        check_frames(source)
        check_frames(target)
        if source.shape != target.shape:
            raise ShapeError("flow needs two frames of one shape", expected=source.shape, got=target.shape)
        network = self._network
        model = network.model
        with running_on(network.device, network.precision, network.name):
            flows = [self._between(model, pair) for pair in zip(source, target, strict=True)]
        return np.stack(flows)[:, : source.shape[1], : source.shape[2]]

    def _between(self, model: Any, pair: tuple[Uint8Array, Uint8Array]) -> Float32Array:
        planes = to_planes(np.stack([_padded(frame) for frame in pair]), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        first, second = torch.split(torch.from_numpy(planes).to(self._network.device), 1)
        flow = model(first, second, num_flow_updates=self._options.updates)[-1][0]
        return np.ascontiguousarray(flow.float().cpu().numpy().transpose(1, 2, 0))


def _padded(frame: Uint8Array) -> Uint8Array:
    wanted = (max(MIN_SIDE_PX, -(-side // MULTIPLE) * MULTIPLE) for side in frame.shape[:2])
    below, right = (size - side for size, side in zip(wanted, frame.shape[:2], strict=True))
    return np.pad(frame, ((0, below), (0, right), (0, 0)), mode="edge")
