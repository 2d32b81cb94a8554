"""Chunks that hold nothing but zeros are stored like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stf_depth.cache.store import StageStore


def test_chunks_of_zeros_are_stored(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "roles", "key", chunk_frames=2)
    for chunk in range(3):
        store.write(chunk, {"roles": np.zeros((2, 4, 4), np.uint8)})
    store.finish(6)
    again = StageStore(tmp_path / "roles", "key", chunk_frames=2)
    assert again.chunks() == [0, 1, 2] and again.is_complete
    assert not again.frames("roles")[:].any()
