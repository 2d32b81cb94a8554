"""Class numbers of a semantic network as segment maps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stf_depth.types import Int32Array, SegmentInfo, SegmentMaps

__all__ = ["semantic_maps"]


def semantic_maps(classes: Int32Array, table: Mapping[int, SegmentInfo], first_id: int) -> SegmentMaps:
    """ids = classes + first_id, with classes that the table does not have unlabelled: (N, h, w) int32.

    The same table stands for every frame, so that an id means the same throughout a video.
    """
    ids = classes + np.int32(first_id)
    highest = max(table, default=0)
    ids = np.where((ids >= 0) & (ids <= highest), ids, 0).astype(np.int32)
    return SegmentMaps(ids, (table,) * len(ids))
