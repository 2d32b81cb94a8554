"""Segmentation by any ONNX network: labels (1, h, w), or scores with classes first or last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import CheckpointError, SpecError
from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.perception.onnx_runtime import OnnxOptions, onto_frame, open_graph, require
from stf_depth.perception.roles import LABEL_SETS, class_table, label_set
from stf_depth.perception.semantic.maps import semantic_maps
from stf_depth.types import Int32Array, SegmentMaps, Uint8Array

__all__ = ["OnnxSemantic"]


class OnnxSemanticOptions(OnnxOptions):
    """labels: name of a label set, or a text file with one class name a line."""

    labels: str | None = None


class OnnxSemantic:
    """An ONNX network whose first output is a class for each pixel.

    Raises what ``open_graph`` raises, and SpecError when the label set is not stated anywhere.
    """

    def __init__(self, request: BackendRequest) -> None:
        self._graph = open_graph(Path(request.location), request.device)
        given = self._graph.options(request.options, set(OnnxSemanticOptions.model_fields))
        self._options = OnnxSemanticOptions.of({"normalize": "imagenet", **given})
        choices = ", ".join(LABEL_SETS) + " or a text file"
        names = _class_names(require(self._options.labels, "labels", choices, self._graph))
        self._table, self._first_id = class_table(names)
        known = self._graph.signature
        self.info: BackendInfo = request.info(
            self._graph.digest,
            # The names, not the path of the file that lists them: its text may change.
            options={**self._options.model_dump(mode="json"), "labels": names},
            licence=known.licence if known is not None and request.licence.commercial is None else None,
        )

    def infer(self, rgb: Uint8Array) -> SegmentMaps:
        """rgb (N, H, W, 3) uint8 -> class ids (N, h, w) at the resolution of the network's output."""
        check_frames(rgb)
        outputs, placement = self._graph.run(rgb, self._options)
        # What a crop cut away is unlabelled, which is class -first_id before the shift.
        maps = [onto_frame(self._classes(output), placement, -self._first_id) for output in outputs]
        return semantic_maps(np.stack(maps), self._table, self._first_id)

    def _classes(self, output: NDArray[Any]) -> Int32Array:
        values = output[0] if output.ndim > 2 and output.shape[0] == 1 else output
        if values.ndim == 3:
            count = len(self._table) + 1 - self._first_id
            axis = 0 if values.shape[0] == count or values.shape[0] == 1 else 2
            values = values.argmax(axis) if values.shape[axis] > 1 else values.squeeze(axis)
        if values.ndim != 2:
            expected = "labels (1, h, w) or scores (1, classes, h, w)"
            raise CheckpointError("not a segmentation", where=self._graph.path, expected=expected, got=output.shape)
        return values.astype(np.int32)


def _class_names(labels: str) -> list[str]:
    if labels in LABEL_SETS:
        return [info.name for info in label_set(labels)]
    path = Path(labels).expanduser()
    if not path.is_file():
        expected = ", ".join(LABEL_SETS) + " or a text file"
        raise SpecError("unknown label set", expected=expected, got=labels)
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
