"""Depth by any ONNX network.

z = output * unit_m for metric z-depth; the output itself otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stf_depth.errors import CheckpointError
from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.perception.onnx_runtime import Graph, OnnxOptions, onto_frame, open_graph, require
from stf_depth.types import Ambiguity, DepthMaps, Float32Array, Representation, Uint8Array

__all__ = ["OnnxDepth"]


class OnnxDepthOptions(OnnxOptions):
    """representation, ambiguity: what the output means. unit_m: metres in one unit of metric z-depth."""

    representation: Representation | None = None
    ambiguity: Ambiguity | None = None
    unit_m: float = Field(1.0, gt=0)


class OnnxDepth:
    """An ONNX network whose first output is one depth map for each image, (1, h, w) or (1, 1, h, w) or (1, h, w, 1).

    Raises what ``open_graph`` raises, and SpecError when the meaning of the output is not stated anywhere.
    """

    def __init__(self, request: BackendRequest) -> None:
        self._graph = open_graph(Path(request.location), request.device)
        given = self._graph.options(request.options, set(OnnxDepthOptions.model_fields))
        self._options = OnnxDepthOptions.of(given)
        choices = "disparity or z_depth"
        self._representation = Representation(
            require(self._options.representation, "representation", choices, self._graph)
        )
        self._ambiguity = Ambiguity(
            require(self._options.ambiguity, "ambiguity", "affine, scale or metric", self._graph)
        )
        if self._options.normalize is None:
            self._options = self._options.with_values({"normalize": _usual_scaling(self._graph)})
        known = self._graph.signature
        self.info: BackendInfo = request.info(
            self._graph.digest,
            options=self._options.model_dump(mode="json"),
            representation=self._representation,
            ambiguity=self._ambiguity,
            licence=known.licence if known is not None and request.licence.commercial is None else None,
        )

    def infer(self, rgb: Uint8Array) -> DepthMaps:
        """rgb (N, H, W, 3) uint8 -> depth (N, h, w) at the resolution of the network's output."""
        check_frames(rgb)
        outputs, placement = self._graph.run(rgb, self._options)
        maps = [onto_frame(self._single_map(output), placement, np.nan) for output in outputs]
        return DepthMaps.of(np.stack(maps), self._representation, self._ambiguity)

    def _single_map(self, output: NDArray[Any]) -> Float32Array:
        values = np.squeeze(output, tuple(axis for axis in (0, 1, -1) if output.shape[axis] == 1 and output.ndim > 2))
        if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
            got = f"{output.dtype} {output.shape}"
            raise CheckpointError("not a depth network", where=self._graph.path, expected="one float map", got=got)
        is_metric = self._representation is Representation.Z_DEPTH and self._ambiguity is Ambiguity.METRIC
        return values.astype(np.float32) * np.float32(self._options.unit_m if is_metric else 1.0)


def _usual_scaling(graph: Graph) -> str:
    """ImageNet scaling for float inputs, as nearly all published depth networks take it; none for uint8."""
    return "none" if graph.source.dtype == "uint8" else "imagenet"
