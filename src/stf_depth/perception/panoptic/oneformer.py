"""Panoptic segmentation by OneFormer (Jain et al., CVPR 2023).

The published processor fetches its class names from a second repository at run time. Here they come from the
checkpoint: a ``class_info_file`` kept in its folder, else the names in ``config.json``.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from stf_depth.errors import WeightsError
from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.perception.frames import aspect_size, resize_frames
from stf_depth.perception.panoptic.merge import MergeOptions
from stf_depth.perception.panoptic.universal import MULTIPLE, input_sides, network_classes, segment_frames
from stf_depth.perception.transformers_network import TransformersNetwork
from stf_depth.perception.weights import Checkpoint
from stf_depth.types import SegmentMaps, Uint8Array

__all__ = ["OneFormer"]

TASK = "the task is panoptic"


class OneFormer:
    """Segments at the resolution of the network's input.

    Raises WeightsError for a checkpoint without its tokenizer.
    """

    def __init__(self, request: BackendRequest) -> None:
        self._options = MergeOptions.of(request.options)
        self._network = TransformersNetwork(request, "OneFormerForUniversalSegmentation")
        checkpoint = self._network.checkpoint
        self._classes = network_classes(checkpoint, _class_info_names(checkpoint))
        self._sides = input_sides(checkpoint, self._options)
        _require_tokenizer(checkpoint)
        self.info: BackendInfo = request.info(checkpoint.digest, options=self._options.model_dump(mode="json"))

    @cached_property
    def _task_tokens(self) -> torch.Tensor:
        """Token ids of the task, (1, task_seq_len), 0 beyond its end."""
        from transformers import CLIPTokenizer

        checkpoint = self._network.checkpoint
        length = int(checkpoint.config.get("task_seq_len", 77))
        try:
            tokenizer: Any = CLIPTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
            encoded = tokenizer(TASK, padding="max_length", max_length=length, truncation=True)
        except Exception as error:
            raise WeightsError(
                "damaged tokenizer", where=checkpoint.folder, got=" ".join(str(error).split())
            ) from error
        return torch.tensor([encoded["input_ids"]]) * torch.tensor([encoded["attention_mask"]])

    def infer(self, rgb: Uint8Array) -> SegmentMaps:
        """rgb (N, H, W, 3) uint8 -> segment ids (N, h, w), numbered frame by frame."""
        check_frames(rgb)
        size = aspect_size(rgb.shape[1], rgb.shape[2], self._sides[0], MULTIPLE, self._sides[1])
        inputs = {"task_inputs": self._task_tokens}
        return segment_frames(self._network, resize_frames(rgb, size), size, self._classes, self._options, inputs)


def _require_tokenizer(checkpoint: Checkpoint) -> None:
    # transformers makes an empty vocabulary where there is none, and the task would be read as nothing.
    for names in (("tokenizer.json",), ("vocab.json", "merges.txt")):
        if all((checkpoint.folder / name).is_file() for name in names):
            return
    expected = "tokenizer.json, or vocab.json and merges.txt"
    raise WeightsError("no tokenizer in checkpoint", where=checkpoint.folder, expected=expected)


def _class_info_names(checkpoint: Checkpoint) -> list[str] | None:
    """Names from ``class_info_file``, None where the folder does not hold it."""
    name = checkpoint.preprocessing.get("class_info_file")
    # A name only: a path would read a file outside the checkpoint.
    path = checkpoint.folder / name if isinstance(name, str) and Path(name).name == name else None
    if path is None or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [str(content[key]["name"]) for key in sorted(content, key=int)]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        expected = '{"0": {"name": "...", "isthing": 0}, ...}'
        raise WeightsError("damaged class list", where=path, expected=expected, got=repr(error)) from error
