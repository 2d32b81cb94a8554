"""A file of the cache or of a result that a power cut has shortened is found, and only what it held is made again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stf_depth.cli.main import main

# Depth from motion without fusion passes through every kind of file and needs no torch.
OPTIONS = ["--preset", "offline", "--panoptic", "regions", "--fusion", "none", "--export", "npz,png16,zarr"]

KINDS = {
    "chunk of a stage": "w/room/cache/frames-*/data.zarr/rgb/c/0/0/0/0",
    "chunk of the structure": "w/room/cache/structure-*/data.zarr/disparity/c/0/0/0",
    "metadata of a stage's array": "w/room/cache/structure-*/data.zarr/disparity/zarr.json",
    "metadata of a stage's group": "w/room/cache/panoptic-*/data.zarr/zarr.json",
    "marker of a chunk": "w/room/cache/panoptic-*/done/000000.json",
    "identity of a stage": "w/room/cache/frames-*/identity.json",
    "ending of a stage": "w/room/cache/frames-*/complete.json",
    "facts of the first pass": "w/room/cache/shots-*.json",
    "camera of a shot": "w/room/cache/camera-*/shot_0000.npz",
    "chunk of the result": "o/room/depth.zarr/depth/c/0/0/0",
    "chunk of the validity": "o/room/depth.zarr/valid/c/0/0/0",
    "metadata of the result's array": "o/room/depth.zarr/depth/zarr.json",
    "metadata of the result's group": "o/room/depth.zarr/zarr.json",
    "marker of the result's chunk": "o/room/.progress/done/000000.json",
    "identity of the result": "o/room/.progress/identity.json",
    "ending of the result": "o/room/.progress/complete.json",
    "manifest": "o/room/manifest.json",
    "depth video": "o/room/depth.mp4",
    "comparison video": "o/room/comparison.mp4",
    "report": "o/room/report.html",
    "exported npz": "o/room/depth.npz",
    "exported image": "o/room/depth_png16/000005.png",
    "exported zarr": "o/room/depth_export.zarr/depth/zarr.json",
    "inference pickle": "w/room/infer_result.pkl",
    "record of the pickle": "w/room/infer_result.json",
    "image of a frame": "w/room/frames/000003.jpg",
    "image of the depth": "w/room/depth/000003.png",
    "record of the images": "w/room/images.json",
}
Contents = Callable[[Path], dict[str, bytes]]


def run(video: Path, root: Path) -> int:
    places = ["--output-dir", str(root / "o"), "--working-dir", str(root / "w")]
    return main(["run", str(video), *OPTIONS, "--inference-pickle", *places])


@pytest.fixture(scope="module")
def finished(room_video: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run, and a copy of it."""
    root, copy = tmp_path_factory.mktemp("finished"), tmp_path_factory.mktemp("copy") / "copy"
    assert run(room_video, root) == 0
    shutil.copytree(root, copy)
    return root, copy


@pytest.fixture
def root(finished: tuple[Path, Path]) -> Iterator[Path]:
    """The finished run, put back afterwards."""
    place, copy = finished
    yield place
    shutil.rmtree(place)
    shutil.copytree(copy, place)


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["emptied", "halved"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_made_again(kind: str, share: float, root: Path, room_video: Path, contents: Contents) -> None:
    whole = contents(root)
    (path,) = root.glob(KINDS[kind])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert run(room_video, root) == 0
    assert contents(root) == whole
    assert path.stat().st_size > 0.9 * len(data)


def test_every_kind_of_file_is_in_the_table(root: Path) -> None:
    covered = {path.suffix for pattern in KINDS.values() for path in root.glob(pattern)}
    written = {path.suffix for path in root.rglob("*") if path.is_file() and path.name != ".lock"}
    assert written == covered


def test_a_missing_file_is_made_again(root: Path, room_video: Path, contents: Contents) -> None:
    whole = contents(root)
    for kind in ("chunk of a stage", "chunk of the result", "depth video", "image of a frame", "camera of a shot"):
        next(root.glob(KINDS[kind])).unlink()
    assert run(room_video, root) == 0
    assert contents(root) == whole
