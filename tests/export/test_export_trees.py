"""Whole folders of results, and memory that does not follow the length of the video."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import zarr

from stf_depth.cli.main import main
from stf_depth.errors import ConfigError, ExportError, GeometryError, InputNotFoundError, OutputError
from stf_depth.export import FORMATS, attempt_tree, export_result, export_tree, remove_exports
from stf_depth.export import reading as reading_module
from stf_depth.result import DepthResult
from stf_depth.synthetic import SyntheticClip
from stf_depth.video.digest import content_digest
from stf_depth.video.writer import VideoWriter


def test_folders_are_mirrored(tiny_result: Path, tmp_path: Path) -> None:
    for name in ("day1/cam_a", "day1/cam_b", "day2/cam_a"):
        shutil.copytree(tiny_result, tmp_path / "in" / name)
    (tmp_path / "in" / "day2" / "unfinished").mkdir()
    written = export_tree(tmp_path / "in", "npz", tmp_path / "out")
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.npz")) == [
        "day1/cam_a/depth.npz",
        "day1/cam_b/depth.npz",
        "day2/cam_a/depth.npz",
    ]
    assert len(written) == 3
    with pytest.raises(InputNotFoundError, match="no depth result"):
        export_tree(tmp_path / "out", "npz")


def test_one_result_is_a_tree_of_one(tiny_result: Path, tmp_path: Path) -> None:
    written = export_tree(tiny_result, "npz", tmp_path)
    assert written == {tiny_result: {"npz": [tmp_path / "depth.npz"]}}


def test_what_fails_does_not_stop_the_rest(
    make_result: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, how in (("a", {}), ("b", {"kind": "unsolved"}), ("c", {}), ("d", {"kind": "unsolved"}), ("e", {})):
        shutil.copytree(make_result(**how), tmp_path / "in" / name)
    (tmp_path / "in" / "c" / "depth.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(ExportError) as failed:
        export_tree(tmp_path / "in", "ply,npz", tmp_path / "out", every=12)
    assert all(f"{tmp_path / 'in' / name}: ply" in str(failed.value) for name in "bcd")
    assert {path.parent.name for path in (tmp_path / "out").glob("*/depth.npz")} == set("abde")
    assert {path.parent.name for path in (tmp_path / "out").glob("*/points_ply")} == set("ae")

    assert (
        main(
            ["export", str(tmp_path / "in"), "--format", "ply,npz", "--set", "every=12", "--out", str(tmp_path / "cli")]
        )
        == 1
    )
    written, errors = capsys.readouterr()
    assert {path.parent.name for path in (tmp_path / "cli").glob("*/depth.npz")} == set("abde")
    assert str(tmp_path / "cli" / "e" / "depth.npz") in written
    lines = errors.splitlines()
    assert [line.split("in/")[1][0] for line in lines] == ["b", "c", "d"]
    assert "ply, npz: damaged depth result" in lines[1]


@pytest.mark.parametrize(
    ("name", "mine"),
    [
        ("npz", "depth.npz/mine.txt"),
        ("npy", "depth_npy/mine.npy"),
        ("png16", "depth_png16/sub/mine.png"),
        ("ply", "points_ply/notes.txt"),
        ("cameras", "cameras/front.png"),
        ("zarr", "depth_export.zarr/other/zarr.json"),
    ],
)
def test_what_an_export_has_not_made_stays(tiny_result: Path, tmp_path: Path, name: str, mine: str) -> None:
    path = tmp_path / mine
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"would replace a folder .*choose another folder") as refused:
        export_result(DepthResult(tiny_result), name, tmp_path)
    assert str(tmp_path / mine.split("/")[0]) in str(refused.value)
    assert remove_exports(tmp_path) == []
    assert path.read_text() == "mine"


def test_every_format_replaces_what_it_has_made(tmp_path: Path, make_result: Callable[..., Path]) -> None:
    result = DepthResult(make_result())
    names = [name for name, form in FORMATS.items() if form.holds]
    for _ in range(2):
        export_result(result, names, tmp_path)
    export_result(result, "cameras", tmp_path, images=False)
    (tmp_path / "depth_exr" / ".DS_Store").write_text("x")
    assert set(remove_exports(tmp_path)) == {FORMATS[name].target for name in names}


def test_clips_do_not_replace_the_exports_of_each_other(
    tiny_result: Path, make_result: Callable[..., Path], room_sequence: Path, tmp_path: Path
) -> None:
    first, other = DepthResult(tiny_result), DepthResult(make_result(source=room_sequence / "color"))
    (kept,) = export_result(first, "npz", tmp_path)["npz"]
    for existing in ("overwrite", "skip"):
        with pytest.raises(OutputError, match=r"another video .*one for each result"):
            export_result(other, "npz", tmp_path, existing=existing)
    export_result(other, "pkl", tmp_path)
    export_result(DepthResult(make_result()), "npz", tmp_path)
    assert kept.is_file()


def test_one_failure_keeps_its_kind_and_the_other_formats(make_result: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="focal length"):
        export_result(DepthResult(make_result(kind="unsolved")), "ply,npz", tmp_path)
    assert (tmp_path / "depth.npz").is_file()


@pytest.mark.parametrize(
    ("edit", "digested"), [("longer", True), ("longer", False), ("shorter", False), ("other", True)]
)
def test_a_source_that_changed_is_told_by_what_needs_it(
    edit: str,
    digested: bool,
    make_result: Callable[..., Path],
    room_clip: SyntheticClip,
    room_video: Path,
    tmp_path: Path,
) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(room_video.read_bytes())
    folder = make_result(source=source)
    if digested:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["input"]["sha256"] = content_digest(source)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        export_result(DepthResult(folder), "comparison", tmp_path / "before")
    frames, order = {"longer": (14, 1), "shorter": (10, 1), "other": (12, -1)}[edit]
    rgb = np.concatenate([room_clip.rgb, room_clip.rgb])[:frames][::order]
    with VideoWriter(source, wh=(96, 64), frame_rate=Fraction(25)) as writer:
        writer.write(rgb, np.arange(frames) / 25)
    names = ["comparison", "sbs", "anaglyph", "rrd", *(["ply", "glb"] if digested else [])]
    done = dict(attempt_tree(folder, [*names, "npz"], tmp_path / "out"))[folder]
    assert set(done.files) == {"npz"}
    assert set(done.failures) == set(names)
    assert all("the source changed since the run" in str(error) for error in done.failures.values())


def test_a_defect_of_one_format_does_not_stop_the_others(
    tiny_result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stf_depth.export.npy.frame_names", lambda _: [])
    done = dict(attempt_tree(tiny_result, ["npy", "npz"], tmp_path))[tiny_result]
    assert set(done.files) == {"npz"}
    assert "unexpected" in str(done.failures["npy"])
    assert "Traceback" in caplog.text


def test_a_bad_option_stops_at_once(tiny_result: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every"):
        export_tree(tiny_result, "npz,ply", tmp_path, every=0)


@pytest.mark.parametrize("name", ["npz", "pkl", "zarr", "png16"])
def test_memory_does_not_follow_the_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A clip of 24 MiB is exported with less than a third of that in memory at any time."""
    frames, height, width = 96, 256, 256
    group = zarr.open_group(tmp_path / "long" / "depth.zarr", mode="w")
    shape, chunk = (frames, height, width), (4, height, width)
    depth = group.create_array("depth", shape=shape, chunks=chunk, dtype=np.float32)
    valid = group.create_array("valid", shape=shape, chunks=chunk, dtype=np.bool_)
    ramp = np.tile(np.linspace(1, 2, width, dtype=np.float32), (4, height, 1))
    for start in range(0, frames, 4):
        depth[start : start + 4], valid[start : start + 4] = ramp, True
    group.create_array("pts_seconds", data=np.arange(frames) / 25)
    group.attrs.update({"representation": "disparity", "ambiguity": "affine"})
    manifest = {"input": {"path": str(tmp_path / "gone.mp4")}, "config": {}, "models": {}, "shots": []}
    (tmp_path / "long" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(reading_module, "_CHUNK_BYTES", 2**19)
    result = DepthResult(tmp_path / "long")
    tracemalloc.start()
    try:
        export_result(result, name, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * 2**20 / 3
