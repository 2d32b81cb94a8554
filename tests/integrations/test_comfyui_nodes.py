"""The ComfyUI nodes, imported the way ComfyUI imports them and called with its tensors."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from stf_depth.errors import ConfigError, InputNotFoundError
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


def test_a_start_behind_the_end_is_said(pack: ModuleType, tiny_result: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected 0 to 11, got 12"):
        pack.NODE_CLASS_MAPPINGS["STFDepthImages"]().images(DepthResult(tiny_result), "gray", 12, 0)


@pytest.mark.parametrize("path", ["", "  "])
def test_a_file_node_without_a_path_runs_nothing(
    pack: ModuleType, path: str, room_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(room_video.parent)
    with pytest.raises(InputNotFoundError, match="no path"):
        pack.NODE_CLASS_MAPPINGS["STFDepthRunOnVideo"]().run(path, "offline")


def test_every_video_and_setting_has_a_result_of_its_own(
    pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, Path]] = []

    def process(source: Path, *, output_dir: Path, working_dir: Path, **_: object) -> None:
        asked.append((output_dir / source.name, working_dir / source.name))

    nodes = sys.modules["comfy_stf_depth.nodes"]
    monkeypatch.setattr(nodes, "_work_folder", lambda: tmp_path / "work")
    monkeypatch.setattr(nodes.stf_depth, "process", process)
    for name, content in (("a", b"1"), ("b", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clip.mp4").write_bytes(content)
    run = pack.NODE_CLASS_MAPPINGS["STFDepthRunOnVideo"]().run
    first = str(tmp_path / "a" / "clip.mp4")
    for arguments in (
        (first, "offline"),
        (first, "fast"),
        (first, "fast", "midas"),
        (first, "fast", "midas", True),
        (str(tmp_path / "b" / "clip.mp4"), "offline"),
    ):
        run(*arguments)
    results, caches = zip(*asked, strict=True)
    assert len(set(results)) == 5
    assert len(set(caches)) == 2  # what does not depend on the settings is computed once
    run(first, "offline")
    assert asked[-1] == asked[0]
    images = pack.NODE_CLASS_MAPPINGS["STFDepthRunOnImages"]().run
    for shape in ((2, 4, 6, 3), (2, 6, 4, 3)):
        images(torch.zeros(shape), "offline")
    assert asked[-1] != asked[-2]


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
