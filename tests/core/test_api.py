"""What the Python interface refuses before any work is done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import stf_depth
from stf_depth.errors import InputError, InputNotFoundError


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
