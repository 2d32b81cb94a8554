from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stf_depth.errors import InputError, InputNotFoundError, SequenceError, ShapeError
from stf_depth.perception.base import IndexedSegments
from stf_depth.perception.registry import create
from stf_depth.types import Role

ROLES = {
    "1": {"name": "sky", "role": "sky"},
    "300": {"name": "car", "role": "mover"},
    "2": {"name": "w", "role": "planar"},
}


@pytest.fixture
def ids() -> np.ndarray:
    ids = np.zeros((12, 6, 8), np.uint16)
    ids[:, :2], ids[:, 2:4], ids[:, 4:, 4:] = 1, 2, 300
    ids[np.arange(12), 5, 0] = np.arange(12) + 20
    return ids


@pytest.fixture
def folder(ids: np.ndarray, tmp_path: Path) -> Path:
    folder = tmp_path / "segments"
    folder.mkdir()
    for number, frame in enumerate(ids):
        Image.fromarray(frame).save(folder / f"frame_{number}.png")
    (tmp_path / "roles.json").write_text(json.dumps(ROLES))
    return folder


def open_segments(path: Path, task: Any = "panoptic") -> Any:
    backend = create(task, f"precomputed:{path}")
    assert isinstance(backend, IndexedSegments)
    return backend


@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_ids_and_roles(task: Any, folder: Path, ids: np.ndarray) -> None:
    backend = open_segments(folder, task)
    maps = backend.read([11, 2])
    np.testing.assert_array_equal(maps.ids, ids[[11, 2]])
    roles = maps.roles()
    assert (roles[:, :2] == Role.SKY).all() and (roles[:, 2:4] == Role.PLANAR).all()
    assert (roles[:, 4:, 4:] == Role.MOVER).all() and maps.tables[0][300].is_thing
    assert maps.tables[1][22].role is Role.UNKNOWN
    assert backend.unusable == {} and len(backend) == 12


def test_roles_in_the_folder_win(folder: Path) -> None:
    (folder / "roles.json").write_text(json.dumps({"1": {"name": "floor", "role": "ground"}}))
    assert (open_segments(folder).read([0]).roles()[0, :2] == Role.GROUND).all()


def test_without_roles_all_is_unknown(folder: Path) -> None:
    (folder.parent / "roles.json").unlink()
    assert not open_segments(folder).read([0]).roles().any()


def test_missing_and_damaged_frames_are_unlabelled_and_counted(folder: Path, ids: np.ndarray) -> None:
    (folder / "frame_4.png").unlink()
    (folder / "frame_7.png").write_bytes((folder / "frame_7.png").read_bytes()[:40])
    (folder / "frame_8.png").write_text("")
    backend = open_segments(folder)
    backend.check_length(12)
    maps = backend.read(range(12))
    for number in (4, 7, 8):
        assert not maps.ids[number].any() and not maps.tables[number]
    assert set(backend.unusable) == {4, 7, 8} and backend.unusable[4] == "missing"
    good = [number for number in range(12) if number not in (4, 7, 8)]
    np.testing.assert_array_equal(maps.ids[good], ids[good])


def test_files_are_the_frames_in_order_on_request(folder: Path, ids: np.ndarray) -> None:
    (folder / "frame_4.png").unlink()
    backend = create("panoptic", f"precomputed:{folder}?numbered=false")
    assert isinstance(backend, IndexedSegments) and len(backend) == 11
    np.testing.assert_array_equal(backend.read(range(11)).ids, np.delete(ids, 4, axis=0))
    assert backend.unusable == {}


def test_frames_after_the_last_file_are_missing(folder: Path) -> None:
    backend = open_segments(folder)
    backend.check_length(13)
    assert not backend.read([12]).ids.any() and backend.unusable == {12: "missing"}
    with pytest.raises(ShapeError, match="expected 30, got 12"):
        backend.check_length(30)


def test_first_file_is_the_first_frame(folder: Path, ids: np.ndarray) -> None:
    for number in range(12):
        (folder / f"frame_{number}.png").rename(folder / f"z_{number + 100}.png")
    np.testing.assert_array_equal(open_segments(folder).read([0, 11]).ids, ids[[0, 11]])


def test_eight_bit_and_palette_images(tmp_path: Path) -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(ids).save(tmp_path / "a0.png")
    palette = Image.fromarray(ids).convert("P")
    palette.putdata(ids.ravel().tolist())
    palette.putpalette([200, 10, 10] * 256)
    palette.save(tmp_path / "a1.png")
    np.testing.assert_array_equal(open_segments(tmp_path).read([0, 1]).ids, np.stack([ids, ids]))


def test_maps_of_another_size_are_brought_to_the_first(tmp_path: Path) -> None:
    small = np.array([[1, 2], [3, 4]], np.uint8)
    Image.fromarray(small).save(tmp_path / "0.png")
    Image.fromarray(small.repeat(3, 0).repeat(3, 1)).save(tmp_path / "1.png")
    maps = open_segments(tmp_path).read([0, 1])
    np.testing.assert_array_equal(maps.ids, np.stack([small, small]))


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"1": {"name": "a", "role": "bird"}}', '{"x": {"role": "sky"}}', '{"1": "sky"}']
)
def test_bad_roles_are_refused(content: str, folder: Path) -> None:
    (folder / "roles.json").write_text(content)
    with pytest.raises(InputError, match="unusable roles"):
        open_segments(folder)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError):
        open_segments(tmp_path / "none")
    with pytest.raises(SequenceError, match="no segment images"):
        open_segments(tmp_path)
    (tmp_path / "0.png").write_text("x")
    with pytest.raises(SequenceError, match="no readable"):
        open_segments(tmp_path)


def test_digest_follows_images_and_roles(folder: Path) -> None:
    first = open_segments(folder).info.weights_digest
    (folder.parent / "roles.json").write_text(json.dumps({"1": {"name": "sky", "role": "static"}}))
    second = open_segments(folder).info.weights_digest
    Image.fromarray(np.zeros((6, 8), np.uint16)).save(folder / "frame_3.png")
    assert len({first, second, open_segments(folder).info.weights_digest}) == 3
