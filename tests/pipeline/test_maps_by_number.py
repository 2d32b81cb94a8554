"""Precomputed maps belong to the frames that they were made of, whatever part of the video is processed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stf_depth.config import preset
from stf_depth.errors import ShapeError
from stf_depth.live import run_live
from stf_depth.perception.registry import create
from stf_depth.video.reader import open_video

COUNT = 12


def numbered(count: int = COUNT) -> np.ndarray:
    """Disparity (count, 8, 12) that says which frame it is of."""
    return np.broadcast_to(1 + np.arange(count, dtype=np.float32)[:, None, None], (count, 8, 12)).copy()


def write_maps(path: Path, **arrays: Any) -> str:
    np.savez(path, **{"depth": numbered(), "representation": "disparity", "ambiguity": "scale", **arrays})
    return f"precomputed:{path}"


def folder_of_maps(folder: Path, numbers: list[int]) -> str:
    folder.mkdir()
    for number in numbers:
        np.save(folder / f"{number:04d}.npy", numbered()[number])
    return f"precomputed:{folder}?representation=disparity&ambiguity=scale"


def images(folder: Path, numbers: list[int], room_sequence: Path) -> Path:
    folder.mkdir()
    for number, image in enumerate(sorted((room_sequence / "color").iterdir())):
        if number in numbers:
            (folder / f"{number:04d}{image.suffix}").symlink_to(image)
    return folder


def frames_read(bench: Any, video: Path, depth: str, name: str = "a", **options: object) -> list[int]:
    """Which frame's map each frame of the result got."""
    setup = replace(bench, depth=create("depth", depth), semantic=None)
    result = setup.run(video, name, **{"fusion.mode": "none", **options}).result
    return (np.asarray(result.depth[:])[:, 0, 0] - 1).astype(int).tolist()


@pytest.mark.parametrize("source", ["video", "sequence"])
def test_a_range_gets_the_maps_of_its_frames(
    source: str, bench, room_video: Path, room_sequence: Path, tmp_path: Path
) -> None:
    path = room_video if source == "video" else room_sequence / "color"
    depth = write_maps(tmp_path / "d.npz")
    with open_video(path) as reader:
        times = np.concatenate([batch.pts_seconds for batch in reader.batches(4)])
    start = {"video.start_seconds": float(times[5])}
    assert frames_read(bench, path, depth, **start) == list(range(5, COUNT))
    assert frames_read(bench, path, depth, "b", **start, **{"video.max_frames": 3}) == [5, 6, 7]
    config = preset("fast", depth=depth, device="cpu").with_values({**start, "causal.lookahead_frames": 0})
    causal = run_live(str(path), config, tmp_path / "causal").depth[:]
    assert len(causal) == 7 and causal[0].mean() == pytest.approx(6, rel=1e-3)


def test_segments_of_a_range_are_those_of_its_frames(bench, room_video: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for number in range(COUNT):
        Image.fromarray(np.full((8, 12), number + 1, np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    (tmp_path / "masks" / "8.png").unlink()
    setup = replace(bench, semantic=create("semantic", f"precomputed:{tmp_path / 'masks'}"))
    setup.delivery = replace(setup.delivery, inference_pickle=True)
    with open_video(room_video, start_seconds=0.2) as reader:
        first = reader.first_number
    result = setup.run(room_video, **{"video.start_seconds": 0.2, "fusion.mode": "none"}).result
    assert first > 0 and result.manifest["input"]["unusable_maps"] == {"semantic": 1}
    (ids,) = (bench.root / "a" / "working" / "cache").glob("semantic-*/data.zarr")
    import zarr

    found = np.asarray(zarr.open_group(ids, mode="r")["ids"])[: len(result), 0, 0]
    assert found.tolist() == [0 if number == 8 else number + 1 for number in range(first, COUNT)]


def test_times_of_maps_must_be_those_of_the_frames(bench, room_video: Path, tmp_path: Path) -> None:
    with open_video(room_video) as reader:
        times = np.concatenate([batch.pts_seconds for batch in reader.batches(4)])
    assert frames_read(bench, room_video, write_maps(tmp_path / "d.npz", pts_seconds=times)) == list(range(COUNT))
    part = write_maps(tmp_path / "part.npz", depth=numbered()[2:], pts_seconds=times[2:])
    options = {"video.start_seconds": float(times[4])}
    with pytest.raises(ShapeError, match="times of the maps contradict"):
        frames_read(bench, room_video, part, "b", **options)
    with pytest.raises(ShapeError, match="times of the maps contradict"):
        run_live(str(room_video), preset("fast", depth=part, device="cpu").with_values(options), tmp_path / "causal")
    assert frames_read(bench, room_video, f"{part}?offset=-2", "c", **options) == list(range(4, COUNT))


def test_an_image_that_cannot_be_decoded_keeps_its_number(bench, room_sequence: Path, tmp_path: Path) -> None:
    folder = images(tmp_path / "images", [number for number in range(COUNT) if number != 3], room_sequence)
    (folder / f"0003{next(folder.iterdir()).suffix}").write_bytes(b"broken")
    depth = folder_of_maps(tmp_path / "maps", list(range(COUNT)))
    assert frames_read(bench, folder, depth) == [0, 1, 2, *range(4, COUNT)]


def test_maps_of_a_sequence_with_gaps(bench, room_sequence: Path, tmp_path: Path) -> None:
    there = [0, 1, 2, 3, *range(6, COUNT)]
    folder = images(tmp_path / "images", there, room_sequence)
    part = {"video.allow_gaps": True, "video.max_frames": 8}
    assert frames_read(bench, folder, folder_of_maps(tmp_path / "same", there), **part) == there[:8]
    with pytest.raises(ShapeError, match="numbering of the maps"):
        frames_read(bench, folder, folder_of_maps(tmp_path / "all", list(range(COUNT))), "b", **part)
    (tmp_path / "masks").mkdir()
    for number in there:
        Image.fromarray(np.ones((8, 12), np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    setup = replace(bench, semantic=create("semantic", f"precomputed:{tmp_path / 'masks'}"))
    with pytest.raises(ShapeError, match="sequence with gaps"):
        setup.run(folder, "c", **part)


def test_a_map_that_is_missing_from_a_folder_is_an_error(bench, room_video: Path, tmp_path: Path) -> None:
    depth = folder_of_maps(tmp_path / "maps", [number for number in range(COUNT) if number != 4])
    with pytest.raises(ShapeError, match="no precomputed map"):
        frames_read(bench, room_video, depth)
    with pytest.raises(ShapeError, match="numbering of the maps"):
        frames_read(bench, room_video, depth, "b", **{"video.max_frames": 8})
    with pytest.raises(ShapeError, match="numbering of the maps"):
        run_live(str(room_video), preset("fast", depth=depth, device="cpu"), tmp_path / "causal")
