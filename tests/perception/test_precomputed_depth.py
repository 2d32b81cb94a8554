"""Depth from files: every format gives back what was written, by frame number."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr

from stf_depth.errors import (
    AmbiguityError,
    ConfigError,
    InputError,
    InputNotFoundError,
    SequenceError,
    ShapeError,
    SpecError,
)
from stf_depth.evaluation.predictions import open_prediction
from stf_depth.export import export_result
from stf_depth.perception.base import IndexedDepth
from stf_depth.perception.registry import create
from stf_depth.result import DepthResult
from stf_depth.types import Ambiguity, Representation


@pytest.fixture
def depth(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0.5, 8.0, (12, 6, 9)).astype(np.float32)


def write_npz(path: Path, depth: np.ndarray, **arrays: Any) -> Path:
    np.savez(path, depth=depth, **{"representation": "z_depth", "ambiguity": "metric", **arrays})
    return path


def open_depth(path: Path, options: str = "") -> Any:
    backend = create("depth", f"precomputed:{path}" + f"?{options}" * bool(options))
    assert isinstance(backend, IndexedDepth)
    return backend


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save: Any, depth: np.ndarray, tmp_path: Path) -> None:
    valid = depth > 1
    pts = np.arange(12) / 25
    save(tmp_path / "d.npz", depth=depth, valid=valid, pts_seconds=pts, representation="z_depth", ambiguity="metric")
    backend = open_depth(tmp_path / "d.npz")
    maps = backend.read([3, 11, 0])
    np.testing.assert_array_equal(maps.depth, np.where(valid, depth, 0)[[3, 11, 0]])
    np.testing.assert_array_equal(maps.valid, valid[[3, 11, 0]])
    np.testing.assert_array_equal(backend.pts_seconds, pts)
    assert len(backend) == 12
    assert (maps.representation, maps.ambiguity) == (Representation.Z_DEPTH, Ambiguity.METRIC)


def test_result_folder(depth: np.ndarray, tmp_path: Path) -> None:
    import zarr

    group = zarr.open_group(tmp_path / "clip" / "depth.zarr", mode="w")
    group.create_array("depth", data=depth)
    group.create_array("valid", data=np.ones(depth.shape, bool))
    group.attrs.update({"representation": "disparity", "ambiguity": "scale"})
    for path in (tmp_path / "clip", tmp_path / "clip" / "depth.zarr"):
        maps = open_depth(path).read(range(12))
        np.testing.assert_array_equal(maps.depth, depth)
        assert maps.ambiguity is Ambiguity.SCALE


def test_npy_stack_and_folder(depth: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", depth)
    (tmp_path / "maps").mkdir()
    for number, frame in enumerate(depth):
        # Without leading zeros: 10 comes after 9, not after 1.
        np.save(tmp_path / "maps" / f"frame{number}.npy", frame.astype(np.float64))
    options = "representation=disparity&ambiguity=affine"
    for path in (tmp_path / "stack.npy", tmp_path / "maps"):
        np.testing.assert_array_equal(open_depth(path, options).read(range(12)).depth, depth)
        with pytest.raises(SpecError, match="meaning of the depth is not stated"):
            open_depth(path)


def test_npy_exports_say_what_they_mean(make_result: Callable[..., Path], tmp_path: Path) -> None:
    result = DepthResult(make_result(ambiguity="scale"))
    expected, sky = np.asarray(result.depth[:]), np.asarray(result.valid[:])
    sky[2, :9, :9] = False
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_group(result.folder / "depth.zarr", mode="r+")["valid"][:] = sky
    export_result(DepthResult(result.folder), "npy", tmp_path)
    maps = open_depth(tmp_path / "depth_npy").read(range(12))
    assert (maps.representation, maps.ambiguity) == (Representation.DISPARITY, Ambiguity.SCALE)
    np.testing.assert_array_equal(maps.valid, sky)
    np.testing.assert_array_equal(maps.depth, np.where(sky, expected, 0))
    (tmp_path / "depth_npy" / "meaning.json").write_text("[")
    with pytest.raises(SequenceError, match=r"unusable meaning.*meaning\.json"):
        open_depth(tmp_path / "depth_npy")


def test_png16_is_millimetres_unless_stated(
    depth: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    codes = (depth * 1000).astype(np.uint16)
    codes[:, 0, 0] = 0
    for number, frame in enumerate(codes):
        cv2.imwrite(str(tmp_path / f"{number:06d}.png"), frame)
    with caplog.at_level(logging.WARNING):
        maps = open_depth(tmp_path).read(range(12))
    assert "millimetres" in caplog.text
    np.testing.assert_allclose(maps.depth[:, 1:], codes[:, 1:] / 1000, rtol=1e-6)
    assert not maps.valid[:, 0, 0].any() and maps.valid[:, 1:].all()
    raw = open_depth(tmp_path, "representation=disparity&ambiguity=affine").read([0])
    np.testing.assert_allclose(raw.depth[0], codes[0])
    halves = open_depth(tmp_path, "representation=z_depth&ambiguity=metric&unit_m=0.0005").read([2])
    np.testing.assert_allclose(halves.depth[0], codes[2] / 2000, rtol=1e-6)


@pytest.mark.parametrize(("options", "metres"), [("", 2.0), ("unit_m=0.01", 20.0)])
def test_stating_the_assumed_meaning_changes_nothing(options: str, metres: float, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.full((4, 5), 2000, np.uint16))
    plain = open_depth(tmp_path, options).read([0])
    stated = open_depth(tmp_path, "representation=z_depth&ambiguity=metric" + f"&{options}" * bool(options)).read([0])
    assert plain.depth[0, 0, 0] == stated.depth[0, 0, 0] == pytest.approx(metres)
    if not options:
        scored = open_prediction(tmp_path, representation="z_depth", ambiguity="metric").read([0])[0]
        assert 1 / scored[0, 0] == pytest.approx(metres)


def test_other_folders_are_in_metres_whoever_says_so(tmp_path: Path) -> None:
    openexr = pytest.importorskip("OpenEXR")
    meaning = "representation=z_depth&ambiguity=metric"
    for name in ("npy", "exr"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "npy" / "0.npy", np.full((4, 5), 2, np.float32))
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    openexr.File(header, {"Z": np.full((4, 5), 2, np.float32)}).write(str(tmp_path / "exr" / "0.exr"))
    read = [open_depth(tmp_path / "exr"), open_depth(tmp_path / "exr", meaning), open_depth(tmp_path / "npy", meaning)]
    assert [float(backend.read([0]).depth[0, 0, 0]) for backend in read] == [2.0, 2.0, 2.0]


def test_png_that_describes_itself(depth: np.ndarray, tmp_path: Path) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    for key, value in {"representation": "disparity", "ambiguity": "scale", "scale": "0.5", "offset": "-1"}.items():
        text.add_text(key, value)
    codes = np.full((4, 5), 10, np.uint16)
    Image.fromarray(codes).save(tmp_path / "0.png", pnginfo=text)
    maps = open_depth(tmp_path).read([0])
    assert (maps.depth == 4.0).all() and maps.ambiguity is Ambiguity.SCALE


def test_exr(depth: np.ndarray, tmp_path: Path) -> None:
    openexr = pytest.importorskip("OpenEXR")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    for number, frame in enumerate(depth):
        channels = {"Z": frame, "confidence": np.ones_like(frame)}
        openexr.File(header, channels).write(str(tmp_path / f"{number:03d}.exr"))
    maps = open_depth(tmp_path).read([5])
    np.testing.assert_array_equal(maps.depth[0], depth[5])
    assert (maps.representation, maps.ambiguity) == (Representation.Z_DEPTH, Ambiguity.METRIC)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0])
@pytest.mark.parametrize("meaning", [("z_depth", "metric"), ("disparity", "scale")])
def test_unusable_values_are_invalid(bad: float, meaning: tuple[str, str], depth: np.ndarray, tmp_path: Path) -> None:
    depth[2, 3, 4] = bad
    maps = open_depth(write_npz(tmp_path / "d.npz", depth, representation=meaning[0], ambiguity=meaning[1])).read([2])
    assert not maps.valid[0, 3, 4] and maps.depth[0, 3, 4] == 0
    assert maps.valid.sum() == maps.valid.size - 1


def test_zero_is_invalid_as_z_and_valid_as_disparity(depth: np.ndarray, tmp_path: Path) -> None:
    depth[0, 0, 0] = 0
    path = write_npz(tmp_path / "d.npz", depth)
    assert not open_depth(path).read([0]).valid[0, 0, 0]
    assert open_depth(path, "representation=disparity").read([0]).valid[0, 0, 0]


@pytest.mark.parametrize("declared", [False, True])
def test_affine_disparity_has_no_zero(declared: bool, depth: np.ndarray, tmp_path: Path) -> None:
    values = depth - depth.mean()
    arrays = {"valid": np.ones(depth.shape, bool)} if declared else {}
    path = write_npz(tmp_path / "d.npz", values, representation="disparity", ambiguity="affine", **arrays)
    maps = open_depth(path).read(range(12))
    assert maps.valid.all() and (values < 0).any()
    np.testing.assert_array_equal(maps.depth, values)


@pytest.mark.parametrize(
    ("meaning", "endless"),
    [
        (("z_depth", "metric"), [np.inf, 0.0, -1.0]),
        (("z_depth", "scale"), [np.inf, 0.0, -1.0]),
        (("disparity", "scale"), [0.0, -1.0, -np.inf]),
    ],
)
def test_known_pixels_without_a_surface_are_infinitely_far(
    meaning: tuple[str, str], endless: list[float], depth: np.ndarray, tmp_path: Path
) -> None:
    depth[0, 0, :3], depth[0, 1, :2] = endless, (np.nan, 2.0)
    valid = np.ones(depth.shape, bool)
    valid[0, 2, 0] = False
    path = write_npz(tmp_path / "d.npz", depth, valid=valid, representation=meaning[0], ambiguity=meaning[1])
    near = open_depth(path).read([0]).as_disparity()
    assert near.valid[0, 0, :3].all() and (near.depth[0, 0, :3] == 0).all()
    assert near.valid[0, 1, :2].tolist() == [False, True] and not near.valid[0, 2, 0]
    scored = open_prediction(path).read([0])[0]
    np.testing.assert_array_equal(np.where(near.valid[0], near.depth[0], np.nan), scored)


@pytest.mark.parametrize("stated", ["options", "file"])
def test_affine_z_depth_is_refused(stated: str, depth: np.ndarray, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", depth, representation="z_depth", ambiguity="affine")
    with pytest.raises(AmbiguityError, match="affine-invariant z-depth"):
        open_depth(path, "representation=z_depth&ambiguity=affine" if stated == "options" else "")


def test_length_is_checked_when_asked(depth: np.ndarray, tmp_path: Path) -> None:
    backend = open_depth(write_npz(tmp_path / "d.npz", depth))
    backend.check_length(12)
    with pytest.raises(ShapeError, match=r"expected 13, got 12"):
        backend.check_length(13)
    with pytest.raises(ShapeError, match="no precomputed map"):
        backend.read([12])


def test_offset_skips_maps(depth: np.ndarray, tmp_path: Path) -> None:
    backend = open_depth(write_npz(tmp_path / "d.npz", depth), "offset=2")
    assert len(backend) == 10
    np.testing.assert_array_equal(backend.read([0]).depth[0], depth[2])


def test_an_offset_below_zero_leaves_the_first_frames_without_maps(depth: np.ndarray, tmp_path: Path) -> None:
    times = 0.1 + np.arange(12) / 25
    backend = open_depth(write_npz(tmp_path / "d.npz", depth, pts_seconds=times), "offset=-3")
    assert len(backend) == 15
    np.testing.assert_array_equal(backend.read([3, 14]).depth, depth[[0, 11]])
    backend.check_times([3, 14], times[[0, 11]])
    with pytest.raises(ShapeError, match="no precomputed map"):
        backend.read([2])


def test_times_are_those_of_the_video_or_of_what_is_left_of_it(depth: np.ndarray, tmp_path: Path) -> None:
    times = np.arange(12) / 25
    path = write_npz(tmp_path / "d.npz", depth, pts_seconds=times)
    open_depth(path).check_times([2, 3], times[2:4] + 0.01)
    open_depth(path, "offset=2").check_times([0, 1], times[:2])
    with pytest.raises(ShapeError, match=r"map 3 .expected 0\.160 s, got 0\.120 s"):
        open_depth(path).check_times([2, 3], np.array([times[2], times[4]]))


@pytest.mark.parametrize(
    ("names", "places", "offset", "agree"),
    [
        ("0 1 2 3", None, 0, True),
        ("0 1 3 4", None, 0, False),
        ("0 1 3 4", [0, 1, 3, 4], 0, True),
        ("0 1 2 3 4", [0, 1, 3, 4], 0, False),
        ("10 20 30 40", None, 0, True),
        ("0 1 2 4 5", [0, 2, 3], 2, True),
        ("2 3 5", [0, 1, 2, 3, 5], -2, True),
    ],
)
def test_names_must_skip_what_the_images_skip(
    names: str, places: list[int] | None, offset: int, agree: bool, depth: np.ndarray, tmp_path: Path
) -> None:
    for name in names.split():
        np.save(tmp_path / f"{name}.npy", depth[0])
    backend = open_depth(tmp_path, f"representation=z_depth&ambiguity=metric&offset={offset}")
    if agree:
        backend.check_numbering(places)
    else:
        with pytest.raises(ShapeError, match="numbering of the maps"):
            backend.check_numbering(places)


def test_stated_meaning_is_overridden_by_options(depth: np.ndarray, tmp_path: Path) -> None:
    backend = open_depth(write_npz(tmp_path / "d.npz", depth), "ambiguity=scale")
    assert backend.info.ambiguity is Ambiguity.SCALE and backend.info.representation is Representation.Z_DEPTH


@pytest.mark.parametrize("words", [{"representation": "inverse"}, {"ambiguity": "relative"}], ids=str)
def test_words_of_a_file_that_mean_nothing_are_told_with_the_file(
    words: dict[str, str], depth: np.ndarray, tmp_path: Path
) -> None:
    path = write_npz(tmp_path / "d.npz", depth, **words)
    (key, word) = next(iter(words.items()))
    with pytest.raises(InputError, match=rf"'{key}': .*d\.npz .*{word}"):
        open_depth(path)
    assert len(open_depth(path, "representation=disparity&ambiguity=scale")) == 12
    with pytest.raises(ConfigError, match="option 'representation'"):
        open_depth(path, "representation=inverse")


@pytest.mark.parametrize("path", ["missing.npz", "missing"])
def test_missing(path: str, tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError):
        open_depth(tmp_path / path)


def test_what_is_not_depth_is_refused(depth: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(InputError, match="damaged"):
        open_depth(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", z=depth)
    with pytest.raises(InputError, match="no depth in"):
        open_depth(tmp_path / "other.npz")
    np.savez(tmp_path / "single.npz", depth=depth[0])
    with pytest.raises(ShapeError, match=r"\(T, h, w\)"):
        open_depth(tmp_path / "single.npz")
    (tmp_path / "movie.mp4").touch()
    with pytest.raises(InputError, match="not precomputed depth"):
        open_depth(tmp_path / "movie.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SequenceError, match="one kind of file"):
        open_depth(tmp_path / "empty")


def test_a_pickled_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", depth=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="refused to unpickle"):
        open_depth(tmp_path / "p.npz")


def test_damaged_png_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.ones((4, 4), np.uint16))
    cv2.imwrite(str(tmp_path / "1.png"), np.ones((4, 4), np.uint8))
    backend = open_depth(tmp_path)
    with pytest.raises(SequenceError, match=r"1\.png"):
        backend.read([0, 1])


def test_digest_follows_the_content(depth: np.ndarray, tmp_path: Path) -> None:
    first = open_depth(write_npz(tmp_path / "a.npz", depth)).info.weights_digest
    depth[0, 0, 0] += 1
    assert open_depth(write_npz(tmp_path / "b.npz", depth)).info.weights_digest != first


def test_memory_does_not_hold_the_stack(tmp_path: Path) -> None:
    import tracemalloc

    np.savez_compressed(
        tmp_path / "big.npz", depth=np.ones((200, 200, 200), np.float32), representation="z_depth", ambiguity="metric"
    )
    tracemalloc.start()
    open_depth(tmp_path / "big.npz").read([100])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 200 * 200 * 4 / 4
