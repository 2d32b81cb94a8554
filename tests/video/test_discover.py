"""Inputs found, named safely, resized and identified."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stf_depth.errors import InputError, InputNotFoundError, ShapeError
from stf_depth.ordering import natural_key
from stf_depth.video.digest import content_digest
from stf_depth.video.discover import InputItem, discover, safe_name
from stf_depth.video.resize import resize_area, working_wh


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_files_folders_and_sequences_in_natural_order(tmp_path: Path) -> None:
    for name in ("clip10.mp4", "clip2.mp4", ".hidden.mp4", "notes.txt", "sub/deep/other.MOV", ".git/secret.mp4"):
        touch(tmp_path / name)
    for index in range(2):
        touch(tmp_path / "shots" / f"{index}.png")
    touch(tmp_path / "kitchen" / "color" / "0.jpg")
    touch(tmp_path / "kitchen" / "depth" / "0.png")
    touch(tmp_path / "done" / "depth.zarr" / "zarr.json")
    touch(tmp_path / "done" / "depth.mp4")
    found = discover([tmp_path])
    assert [(item.name, item.kind) for item in found] == [
        ("clip2", "video"),
        ("clip10", "video"),
        ("kitchen", "sequence"),
        ("shots", "sequence"),
        ("other", "video"),
    ]
    assert found[2].path == tmp_path / "kitchen" / "color"


def test_a_file_named_outright_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    path = touch(tmp_path / "clip.dat")
    assert discover([path]) == [InputItem(path, "clip", "video")]


def test_names_are_unique_even_without_regard_to_case(tmp_path: Path) -> None:
    paths = [touch(tmp_path / name) for name in ("a/clip.mp4", "a/clip.mov", "b/Clip.mp4", "c/clip.mp4", "d/clip.mp4")]
    names = [item.name for item in discover(paths)]
    assert names == ["clip_mp4", "clip", "b_Clip", "c_clip", "d_clip"]
    assert len(discover([tmp_path / "a", tmp_path / "a"])) == 2


def test_names_do_not_depend_on_the_order_given(tmp_path: Path) -> None:
    for name in ("v/clip.mp4", "v/a/clip.mp4", "v/b/clip.mp4", "v/b/a/clip.mp4", "v/10/color/0.png"):
        touch(tmp_path / name)
    touch(tmp_path / "v" / "w" / "10" / "0.png")
    whole = {item.path: item.name for item in discover([tmp_path / "v"])}
    assert whole == {
        tmp_path / "v" / "clip.mp4": "clip",
        tmp_path / "v" / "10" / "color": "10",
        tmp_path / "v" / "a" / "clip.mp4": "a_clip",
        tmp_path / "v" / "b" / "clip.mp4": "b_clip",
        tmp_path / "v" / "b" / "a" / "clip.mp4": "b_a_clip",
        tmp_path / "v" / "w" / "10": "w_10",
    }
    paths = [path.parent if path.name == "color" else path for path in whole]
    turned = discover(paths[::-1])
    assert [item.path for item in turned] == list(whole)[::-1]
    assert {item.path: item.name for item in turned} == whole


def test_symlinks_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "clip.mp4")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "link.mp4").symlink_to(tmp_path / "in" / "clip.mp4")
    (tmp_path / "in" / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    assert [item.name for item in discover([tmp_path / "in"])] == ["clip", "link"]
    with pytest.raises(InputNotFoundError):
        discover([tmp_path / "in" / "dangling.mp4"])


def test_the_folders_of_a_run_are_no_inputs(tmp_path: Path) -> None:
    for name in ("clip.mp4", "o/clip/new.mp4", "w/clip/frames/0.jpg", "old/clip/cache/x", "old/clip/frames/0.jpg"):
        touch(tmp_path / name)
    touch(tmp_path / "old" / "clip" / "images.json")
    places = [tmp_path / "o", tmp_path / "w"]
    assert [item.name for item in discover([tmp_path], skipped=places)] == ["clip"]
    # Named outright, or above what is named, they are.
    assert [item.name for item in discover([tmp_path / "o"], skipped=places)] == ["new"]
    assert [item.name for item in discover([tmp_path / "o" / "clip"], skipped=[tmp_path / "o"])] == ["new"]


def test_what_is_named_in_several_ways_is_one_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = touch(tmp_path / "in" / "clip.mp4")
    touch(tmp_path / "in" / "kitchen" / "color" / "0.jpg")
    monkeypatch.chdir(tmp_path)
    named = [Path("in/clip.mp4"), clip, Path("in/../in/clip.mp4"), Path("in"), Path("in/kitchen/color")]
    assert [item.path for item in discover(named)] == [Path("in/clip.mp4"), Path("in/kitchen/color")]


def test_one_bad_path_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    failures: list[InputError] = []
    paths = [tmp_path / "nothing.mp4", tmp_path / "empty", touch(tmp_path / "clip.mp4")]
    assert [item.name for item in discover(paths, failures=failures)] == ["clip"]
    assert [error.where for error in failures] == paths[:2]
    assert ".jpg" in str(failures[1]) and ".mp4" in str(failures[1])


def test_nothing_found_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="no such file"):
        discover([tmp_path / "nothing.mp4"])
    touch(tmp_path / "empty" / "readme.txt")
    with pytest.raises(InputNotFoundError, match="no video or image sequence"):
        discover([tmp_path / "empty"])


def test_long_and_foreign_names(tmp_path: Path) -> None:
    long = touch(tmp_path / ("é" * 110 + ".mp4"))
    other = touch(tmp_path / ("é" * 109 + "è.mp4"))
    strange = touch(tmp_path / "影片 🎬 нет.mp4")
    first, second, third = discover([long, other, strange])
    assert len(first.name.encode()) <= 120 and first.name != second.name
    assert third.name == "影片 🎬 нет"


@pytest.mark.skipif(os.name != "posix", reason="names that are not UTF-8 exist on POSIX only")
def test_a_name_that_is_no_text_still_gives_one(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.mp4"))
    touch(path)
    (item,) = discover([tmp_path])
    assert item.path == path
    item.name.encode("utf-8")


@given(st.text(max_size=300))
def test_a_safe_name_is_one_component_inside_its_folder(label: str) -> None:
    name = safe_name(label)
    assert name and len(name.encode()) <= 120
    assert name not in (".", "..") and not name.startswith(".")
    assert not set(name) & set("/\\\0:")
    root = Path("/out")
    assert Path(os.path.normpath(root / name)).parent == root
    assert safe_name(name) == name


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=20))
def test_natural_order_is_the_order_of_the_numbers(numbers: list[int]) -> None:
    names = sorted((f"frame{number}.png" for number in numbers), key=natural_key)
    assert names == [f"frame{number}.png" for number in sorted(numbers)]


def test_digest_follows_the_content_alone(tmp_path: Path) -> None:
    import hashlib

    one, other = touch(tmp_path / "a.mp4", b"abc"), touch(tmp_path / "b.mp4", b"abc")
    assert content_digest(one) == content_digest(other) == hashlib.sha256(b"abc").hexdigest()
    touch(one, b"abd")
    assert content_digest(one) != content_digest(other)


def test_digest_of_a_sequence_sees_names_order_and_content(tmp_path: Path) -> None:
    digests = set()
    for number, (names, contents) in enumerate(
        [(("1.png", "2.png"), (b"a", b"b")), (("1.png", "2.png"), (b"b", b"a")), (("1.png", "3.png"), (b"a", b"b"))]
    ):
        for name, content in zip(names, contents, strict=True):
            touch(tmp_path / str(number) / name, content)
        touch(tmp_path / str(number) / "notes.txt", bytes([number]))
        digests.add(content_digest(tmp_path / str(number)))
    assert len(digests) == 3
    touch(tmp_path / "0" / "notes.txt", b"else")
    assert content_digest(tmp_path / "0") in digests
    with pytest.raises(InputNotFoundError):
        content_digest(tmp_path / "nothing")


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(64, 4096), st.sampled_from([2, 8, 14]))
def test_working_size_is_even_bounded_and_keeps_the_aspect(width: int, height: int, side: int, multiple: int) -> None:
    w, h = working_wh((width, height), side, multiple=multiple)
    assert w % multiple == h % multiple == 0 and min(w, h) >= multiple
    assert max(w, h) <= side
    factor = min(1, side / max(width, height))
    assert abs(w - width * factor) <= multiple and abs(h - height * factor) <= multiple


def test_working_size_of_nothing_is_refused() -> None:
    with pytest.raises(ShapeError):
        working_wh((0, 10), 64)


def test_area_resizing_is_the_mean_of_the_covered_pixels(rng: np.random.Generator) -> None:
    image = rng.random((12, 20, 3)).astype(np.float32)
    small = resize_area(image, (5, 4))
    np.testing.assert_allclose(small, image.reshape(4, 3, 5, 4, 3).mean((1, 3)), atol=1e-6)
    # 3 pixels into 2: each new pixel covers one and a half.
    row = np.array([[1, 2, 4]], np.float32)
    np.testing.assert_allclose(resize_area(row, (2, 1)), [[(1 + 2 / 2) / 1.5, (2 / 2 + 4) / 1.5]], rtol=1e-6)


def test_enlarging_keeps_the_edges_aligned() -> None:
    ramp = np.arange(8, dtype=np.float32)[None].repeat(4, 0)
    large = resize_area(ramp, (16, 4))
    np.testing.assert_allclose(large[0, 1:-1], (np.arange(16) + 0.5)[1:-1] / 2 - 0.5, atol=1e-5)
    mixed = resize_area(ramp, (16, 2))
    assert mixed.shape == (2, 16) and resize_area(ramp[..., None], (3, 3)).shape == (3, 3, 1)
