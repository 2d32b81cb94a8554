"""A run leaves a page that leads to the reports of every result in its output folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stf_depth.cli.run import _write_index, execute
from stf_depth.errors import InputError, OutputError
from stf_depth.executors.base import JobResult
from stf_depth.pipeline.process import Outcome
from stf_depth.pipeline.progress import SilentReporter
from stf_depth.report import write_index
from stf_depth.result import DepthResult

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, room_video: Path, tiny_result: Path) -> Run:
    """Run videos of the names given, all but one of which get a result, into ``tmp_path / "out"``."""

    def deliver(jobs: list[Any], *_: Any, **__: Any) -> list[JobResult]:
        done = []
        for job in jobs:
            if job.item.name == "failing":
                done.append(JobResult(job, error=InputError("broken")))
                continue
            shutil.copytree(tiny_result, job.folders.output)
            (job.folders.output / "report.html").write_text("report")
            done.append(JobResult(job, outcome=Outcome(DepthResult(job.folders.output), 12, 0, 1.0, ("fusion",))))
        return done

    monkeypatch.setattr("stf_depth.api.process_many", deliver)

    def run(*names: str) -> int:
        shutil.rmtree(tmp_path / "in", ignore_errors=True)
        (tmp_path / "in").mkdir()
        for name in names:
            shutil.copy(room_video, tmp_path / "in" / f"{name}.mp4")
        return execute(
            [tmp_path / "in"],
            output_dir=tmp_path / "out",
            working_dir=tmp_path / "work",
            preset="offline",
            overrides={},
            options={},
            delivery={"exports": ""},
            quiet=True,
        )

    return run


def test_index_lists_every_finished_result(run: Run, tmp_path: Path) -> None:
    index = tmp_path / "out" / "index.html"
    assert run("a") == 0
    assert not index.exists()
    assert run("b", "failing") == 1
    assert 'href="a/report.html"' in index.read_text() and 'href="b/report.html"' in index.read_text()
    assert "failing" not in index.read_text()
    (tmp_path / "out" / "a" / "manifest.json").write_text("{")
    assert run("c") == 0
    assert "This result is damaged" in index.read_text() and 'href="c/report.html"' in index.read_text()


def test_a_page_of_the_user_stays(run: Run, tmp_path: Path) -> None:
    index = tmp_path / "out" / "index.html"
    index.parent.mkdir()
    index.write_text("<title>Mine</title>")
    assert run("a", "b") == 0
    told: list[str] = []
    reporter = SilentReporter()
    reporter.message = lambda video, text: told.append(f"{video}: {text}")  # type: ignore[method-assign]
    _write_index(tmp_path / "out", reporter)
    assert told == [
        f"index.html: warning: {tmp_path / 'out'} has a page of this name that no run has written; it stays"
    ]
    assert index.read_text() == "<title>Mine</title>"
    with pytest.raises(OutputError, match="no run has written"):
        write_index([], index)


def test_no_result_takes_the_name_of_the_page(run: Run, tmp_path: Path) -> None:
    assert run("a", "index.html") == 0
    assert (tmp_path / "out" / "index.html").is_file()
    assert (tmp_path / "out" / "index.html_mp4" / "manifest.json").is_file()
