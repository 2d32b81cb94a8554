"""What the Python interface refuses before any work is done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import stf_depth
from stf_depth.errors import InputError, InputNotFoundError, SpecError
from stf_depth.executors.base import Job, JobResult


def test_process_wants_one_video(room_video: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copy(room_video, tmp_path / f"{name}.mp4")
    with pytest.raises(InputError, match=r"one video is expected.*got 2 of them.*process_many"):
        stf_depth.process(tmp_path, preset="offline", output_dir=tmp_path / "o", working_dir=tmp_path / "w")
    assert not (tmp_path / "o").exists()


def test_process_does_not_take_an_empty_path_for_this_folder(
    room_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(room_video.parent)
    with pytest.raises(InputNotFoundError, match="no path"):
        stf_depth.process("", preset="offline", output_dir=tmp_path / "o", working_dir=tmp_path / "w")


def test_process_reads_exports_as_the_command_line_does(
    room_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"output_dir": tmp_path / "o", "working_dir": tmp_path / "w"}
    with pytest.raises(SpecError, match="Did you mean 'npz'"):
        stf_depth.process(room_video, preset="offline", exports="npzz", **places)
    seen: list[tuple[str, ...]] = []

    def stop(jobs: list[Job], *_: object, **__: object) -> list[JobResult]:
        seen.extend(job.delivery.exports for job in jobs)
        return [JobResult(job, error=InputError("stop")) for job in jobs]

    monkeypatch.setattr("stf_depth.api.process_many", stop)
    for exports in ("NPZ, exr", ["npz", "EXR"]):
        with pytest.raises(InputError, match="stop"):
            stf_depth.process(room_video, preset="offline", exports=exports, **places)
    assert seen == [("npz", "exr")] * 2
