"""Queries of a mask-classification network -> one segment for each pixel (Cheng et al., NeurIPS 2021, section 3.4).

Each pixel goes to the query with the largest product of class score and mask probability. A query keeps its pixels
where its mask passes one half, and only if it keeps enough of that mask; stuff of one class is one segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.types import Int32Array, SegmentInfo

__all__ = ["MergeOptions", "merge_queries"]


class MergeOptions(FrozenConfig):
    """threshold: class score of a query that counts. overlap: part of its mask that a query must keep.

    short_side: network input in pixels, instead of the checkpoint's own.
    """

    threshold: float = Field(0.8, ge=0, le=1)
    overlap: float = Field(0.8, ge=0, le=1)
    short_side: int | None = Field(None, ge=64, le=2048)


def merge_queries(
    class_logits: torch.Tensor, masks: torch.Tensor, classes: Mapping[int, SegmentInfo], options: MergeOptions
) -> tuple[Int32Array, dict[int, SegmentInfo]]:
    """class_logits (Q, C + 1), the last for no object; masks (Q, h, w) probabilities -> ids (h, w) int32 and table.

    classes: class number -> meaning; a class that is not there (a background) leaves its pixels unlabelled.
    """
    scores, labels = class_logits.float().softmax(-1).max(-1)
    kept = (labels != class_logits.shape[-1] - 1) & (scores > options.threshold)
    scores, labels, masks = scores[kept], labels[kept], masks[kept]
    ids = torch.zeros(masks.shape[-2:], dtype=torch.int32, device=masks.device)
    table: dict[int, SegmentInfo] = {}
    stuff: dict[int, int] = {}
    winner = (scores[:, None, None] * masks).argmax(0) if len(masks) else ids
    for query, (score, label) in enumerate(zip(scores.tolist(), labels.tolist(), strict=True)):
        own, inside = winner == query, masks[query] >= 0.5
        area, whole = int(own.sum()), int(inside.sum())
        info = classes.get(label)
        if info is None or not bool((own & inside).any()) or area < options.overlap * whole:
            continue
        number = stuff.get(label, len(table) + 1)
        if not info.is_thing:
            stuff[label] = number
        best = max(score, table[number].score) if number in table else score
        table[number] = replace(info, score=best)
        ids[own & inside] = number
    return ids.cpu().numpy(), table
