"""The ComfyUI nodes, imported the way ComfyUI imports them and called with its tensors."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from stf_depth.result import DepthResult

PACK = Path(__file__).resolve().parents[2] / "integrations" / "comfyui"


@pytest.fixture(scope="module")
def pack() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "comfy_stf_depth", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["comfy_stf_depth"] = module
    spec.loader.exec_module(module)
    return module


def test_every_node_is_complete(pack: ModuleType) -> None:
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    for node in pack.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(node(), node.FUNCTION))
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        assert set(node.INPUT_TYPES()) <= {"required", "optional"}


def test_opened_result_becomes_steady_images(pack: ModuleType, tiny_result: Path) -> None:
    nodes = pack.NODE_CLASS_MAPPINGS
    (depth,) = nodes["STFDepthOpenResult"]().open(str(tiny_result))
    images, valid, meaning = nodes["STFDepthImages"]().images(depth, "gray", 2, 5)
    assert images.shape == (5, 64, 96, 3)
    assert images.dtype == torch.float32
    assert valid.shape == (5, 64, 96)
    assert 0 <= float(images.min()) < 0.1 < 0.9 < float(images.max()) <= 1
    assert meaning == "disparity, metric"
    near, far = np.asarray(depth.depth[2]).argmax(), np.asarray(depth.depth[2]).argmin()
    flat = images[0, ..., 0].flatten()
    assert flat[int(near)] > flat[int(far)]
    assert len(torch.unique(flat)) > 256  # more than eight bits
    coloured, *_ = nodes["STFDepthImages"]().images(depth, "turbo", 0, 0)
    assert coloured.shape == (12, 64, 96, 3)


def test_export_node_writes_files(pack: ModuleType, tiny_result: Path, tmp_path: Path) -> None:
    node = pack.NODE_CLASS_MAPPINGS["STFDepthExport"]()
    (files,) = node.export(DepthResult(tiny_result), "npz", str(tmp_path))
    assert Path(files).is_file()


@pytest.mark.slow
def test_images_are_processed_offline(
    pack: ModuleType, room_clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run on ComfyUI's tensors, with depth that is already there instead of a network."""
    np.savez(
        tmp_path / "depth.npz",
        depth=(1 / room_clip.depth).astype(np.float32),
        representation="disparity",
        ambiguity="metric",
    )
    monkeypatch.setattr(sys.modules["comfy_stf_depth.nodes"], "_work_folder", lambda: tmp_path / "work")
    node = pack.NODE_CLASS_MAPPINGS["STFDepthRunOnImages"]()
    images = torch.from_numpy(room_clip.rgb.astype(np.float32) / 255)
    (depth,) = node.run(images, "offline", depth=f"precomputed:{tmp_path / 'depth.npz'}")
    assert depth.depth.shape == (12, 64, 96)
    (again,) = node.run(images, "offline", depth=f"precomputed:{tmp_path / 'depth.npz'}")
    assert again.folder == depth.folder
