"""A run of several videos leaves a page that leads to their reports."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from stf_depth.cli.run import execute
from stf_depth.errors import InputError
from stf_depth.executors.base import JobResult
from stf_depth.pipeline.process import Outcome
from stf_depth.result import DepthResult


@pytest.mark.parametrize(("videos", "failing", "linked"), [(3, "b", ["a", "c"]), (1, "", None)])
def test_index_lists_what_was_finished(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    room_video: Path,
    tiny_result: Path,
    videos: int,
    failing: str,
    linked: list[str] | None,
) -> None:
    names = "abc"[:videos]
    (tmp_path / "in").mkdir()
    for name in names:
        shutil.copy(room_video, tmp_path / "in" / f"{name}.mp4")

    def deliver(jobs: list[Any], *_: Any, **__: Any) -> list[JobResult]:
        done = []
        for job in jobs:
            if job.item.name == failing:
                done.append(JobResult(job, error=InputError("broken")))
                continue
            shutil.copytree(tiny_result, job.folders.output)
            (job.folders.output / "report.html").write_text("report")
            done.append(JobResult(job, outcome=Outcome(DepthResult(job.folders.output), 12, 0, 1.0, ("fusion",))))
        return done

    monkeypatch.setattr("stf_depth.api.process_many", deliver)
    code = execute(
        [tmp_path / "in"],
        output_dir=tmp_path / "out",
        working_dir=tmp_path / "work",
        preset="offline",
        overrides={},
        options={},
        delivery={"exports": ""},
        quiet=True,
    )
    index = tmp_path / "out" / "index.html"
    assert code == (1 if failing else 0)
    assert index.exists() is (linked is not None)
    for name in linked or []:
        assert f'href="{name}/report.html"' in index.read_text()
    assert not index.exists() or 'href="b/report.html"' not in index.read_text()
