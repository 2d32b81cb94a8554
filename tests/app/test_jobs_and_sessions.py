"""The queue, the visitors' folders and the checks behind the page, without any page."""

from __future__ import annotations

import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stf_depth.app.jobs import BusyError, JobCancelledError, JobQueue
from stf_depth.app.limits import AppLimits
from stf_depth.app.server import check_access
from stf_depth.app.sessions import Session, Sessions
from stf_depth.app.work import accept_upload, demo_video, export_file, picture_pair, public_message
from stf_depth.errors import ConfigError, InputError, StfDepthError, UnreadableVideoError, WeightsError
from stf_depth.pipeline.progress import Reporter
from stf_depth.result import DepthResult
from stf_depth.video.reader import open_video

PATIENCE_SECONDS = 30


@pytest.fixture
def jobs() -> Iterator[JobQueue]:
    queue = JobQueue(running=1, waiting=2)
    yield queue
    queue.close()


@pytest.fixture
def sessions(jobs: JobQueue) -> Iterator[Sessions]:
    made = Sessions(jobs, keep_seconds=3600)
    yield made
    made.close()


class Gate:
    """A job that says when it has started and advances until it is let go."""

    def __init__(self) -> None:
        self.started, self.opened, self.ended = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, reporter: Reporter) -> str:
        reporter.stage("clip", "fusion", 100)
        self.started.set()
        try:
            while not self.opened.wait(0.005):
                reporter.advance(1)
        finally:
            self.ended.set()
        return "done"


def test_jobs_run_in_order_and_say_how_many_are_ahead(jobs: JobQueue) -> None:
    first, order = Gate(), []
    running = jobs.submit("a", first)
    waiting = [jobs.submit(name, lambda _, name=name: order.append(name)) for name in ("b", "c")]
    assert first.started.wait(PATIENCE_SECONDS)
    assert [jobs.ahead(ticket) for ticket in (running, *waiting)] == [0, 1, 2]
    first.opened.set()
    assert running.result() == "done"
    for ticket in waiting:
        ticket.result()
    assert order == ["b", "c"]
    assert all(jobs.of(owner) is None for owner in "abc")


def test_progress_counts_frames_of_the_stage(jobs: JobQueue) -> None:
    ticket = jobs.submit("a", lambda reporter: (reporter.stage("v", "decode", 5), reporter.advance(2)))
    ticket.result()
    assert (ticket.progress.stage, ticket.progress.done, ticket.progress.total) == ("decode", 2, 5)


def test_running_job_stops_at_its_next_sign_of_progress(jobs: JobQueue) -> None:
    gate = Gate()
    ticket = jobs.submit("a", gate)
    assert gate.started.wait(PATIENCE_SECONDS)
    ticket.cancel()
    assert ticket.wait(PATIENCE_SECONDS) and gate.ended.is_set()
    with pytest.raises(JobCancelledError):
        ticket.result()
    assert jobs.submit("a", lambda _: 1).result() == 1


def test_waiting_job_that_is_cancelled_never_starts(jobs: JobQueue) -> None:
    gate, started = Gate(), []
    running, waiting = jobs.submit("a", gate), jobs.submit("b", started.append)
    waiting.cancel()
    with pytest.raises(JobCancelledError):
        waiting.result()
    gate.opened.set()
    assert running.result() == "done" and started == []


def test_queue_has_an_end(jobs: JobQueue) -> None:
    gate = Gate()
    jobs.submit("a", gate)
    with pytest.raises(BusyError, match="still running"):
        jobs.submit("a", gate)
    for owner in ("b", "c"):
        jobs.submit(owner, gate)
    with pytest.raises(BusyError, match="too many"):
        jobs.submit("d", gate)
    gate.opened.set()


def test_failure_belongs_to_its_own_job(jobs: JobQueue) -> None:
    def fail(_: Reporter) -> None:
        raise ValueError("broken")

    broken, fine = jobs.submit("a", fail), jobs.submit("b", lambda _: 7)
    with pytest.raises(ValueError, match="broken"):
        broken.result()
    assert fine.result() == 7


def test_session_key_cannot_lead_out_of_the_root(sessions: Sessions) -> None:
    folder = sessions.of("../../../etc").folder
    assert folder.parent == sessions.root and folder.is_dir()
    assert sessions.of("x").folder != folder and sessions.of("x").folder == sessions.of("x").folder
    assert sessions.root.stat().st_mode & 0o077 == 0


def test_leaving_stops_the_job_and_removes_the_files(jobs: JobQueue, sessions: Sessions) -> None:
    folder, gate = sessions.of("a").folder, Gate()
    (folder / "file").write_text("x")
    ticket = jobs.submit("a", gate)
    assert gate.started.wait(PATIENCE_SECONDS)
    sessions.forget("a")
    assert ticket.wait(PATIENCE_SECONDS)
    jobs.close()
    assert gate.ended.is_set() and not folder.exists()


def test_visitors_who_stay_away_are_forgotten(jobs: JobQueue) -> None:
    sessions = Sessions(jobs, keep_seconds=-1)
    old = sessions.of("old").folder
    new = sessions.of("new").folder
    assert new.is_dir() and not old.exists()
    sessions.close()
    assert not sessions.root.exists()


@pytest.fixture
def visitor(sessions: Sessions) -> Session:
    return sessions.of("visitor")


def upload(sessions: Sessions, source: Path, name: str) -> Path:
    target = sessions.uploads / name
    shutil.copyfile(source, target)
    return target


def test_video_is_accepted_under_a_safe_name(sessions: Sessions, visitor: Session, room_video: Path) -> None:
    accepted = accept_upload(sessions, visitor, upload(sessions, room_video, "a clip:1.mp4"), AppLimits())
    assert accepted.parent == visitor.folder / "input" and ":" not in accepted.name
    with open_video(accepted) as reader:
        assert reader.info.width_px == 96


def test_uploads_of_one_name_and_several_types_get_results_of_their_own(
    sessions: Sessions, visitor: Session, room_video: Path
) -> None:
    names = ["clip.mp4", "clip.mov", "clip.mp4", "clip.mov"]
    accepted = [accept_upload(sessions, visitor, upload(sessions, room_video, name), AppLimits()) for name in names]
    assert [path.name for path in accepted] == ["clip.mp4", "clip_mov.mov"] * 2


def test_files_that_are_not_accepted(sessions: Sessions, visitor: Session, room_video: Path, tmp_path: Path) -> None:
    limits = AppLimits()
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match="type of file"):
        accept_upload(sessions, visitor, upload(sessions, room_video, "clip.exe"), limits)
    with pytest.raises(UnreadableVideoError):
        accept_upload(sessions, visitor, upload(sessions, tmp_path / "text.mp4", "text.mp4"), limits)
    with pytest.raises(InputError, match="not an uploaded file"):
        accept_upload(sessions, visitor, room_video, limits)
    link = sessions.uploads / "link.mp4"
    link.symlink_to(room_video)
    with pytest.raises(InputError, match="not an uploaded file"):
        accept_upload(sessions, visitor, link, limits)
    with pytest.raises(InputError, match="frames are too large"):
        accept_upload(sessions, visitor, upload(sessions, room_video, "b.mp4"), AppLimits(pixels=96 * 64 - 1))
    large = upload(sessions, room_video, "large.mp4")
    with large.open("ab") as file:
        file.truncate(1_000_001)
    with pytest.raises(InputError, match="too large"):
        accept_upload(sessions, visitor, large, AppLimits(upload_mb=1))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (JobCancelledError("cancelled"), "Cancelled."),
        (InputError("not a video", where="/srv/private/x.mp4"), "not a video"),
        (WeightsError("no weights", expected="files in /root/.cache/hub", hint="Use /opt/a/b"), "no weights"),
        (StfDepthError("unexpected KeyError: 'k'", hint="see /srv/log"), "went wrong inside"),
        (ZeroDivisionError("secret"), "went wrong inside"),
    ],
)
def test_visitors_read_no_folders_and_no_defects(error: BaseException, expected: str) -> None:
    text = public_message(error)
    assert expected in text
    assert not any(word in text for word in ("/srv", "/root", "/opt", "KeyError", "secret"))


def test_pictures_of_a_frame(tiny_result: Path) -> None:
    before, after = picture_pair(DepthResult(tiny_result), 99)
    assert before.shape == after.shape == (64, 96, 3)
    assert np.abs(before.astype(int) - after).mean() > 3


def test_exports_are_single_files(visitor: Session, tiny_result: Path) -> None:
    with pytest.raises(InputError, match="no result"):
        export_file(visitor, "npz")
    visitor.result = DepthResult(tiny_result)
    single = export_file(visitor, "npz")
    assert np.load(single, allow_pickle=False)["depth"].shape == (12, 64, 96)
    with zipfile.ZipFile(export_file(visitor, "png16")) as archive:
        assert sum(name.endswith(".png") for name in archive.namelist()) == 12
        assert not any(name.startswith(("/", "..")) for name in archive.namelist())


def test_demo_clip_can_be_opened(visitor: Session) -> None:
    with open_video(demo_video(visitor, frames=2)) as reader:
        assert sum(len(batch) for batch in reader.batches(4)) == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "example.org", "::"])
def test_other_machines_need_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="needs a token"):
        check_access(host, None)
    with pytest.raises(ConfigError, match="too short"):
        check_access(host, "short")
    check_access(host, "long enough token")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.0.1"])
def test_this_machine_needs_none(host: str) -> None:
    check_access(host, None)


def test_equal_uploads_stay_as_long_as_somebody_needs_them(sessions: Sessions, room_video: Path) -> None:
    shared = upload(sessions, room_video, "clip.mp4")
    for name in ("a", "b"):
        accept_upload(sessions, sessions.of(name), shared, AppLimits())
    sessions.forget("a")
    assert shared.is_file()
    sessions.forget("b")
    assert not shared.exists()


def test_old_uploads_are_swept(jobs: JobQueue, room_video: Path) -> None:
    sessions = Sessions(jobs, keep_seconds=100)
    old, new = upload(sessions, room_video, "old.mp4"), upload(sessions, room_video, "new.mp4")
    os.utime(old, (1, 1))
    sessions.of("anybody")
    assert new.is_file() and not old.exists()
    sessions.close()


def test_preset_and_limits_reach_the_pipeline(visitor: Session, room_video: Path) -> None:
    from stf_depth.app.work import process_upload
    from stf_depth.config import RunConfig
    from stf_depth.executors.base import Job, JobResult
    from stf_depth.pipeline.progress import SilentReporter

    class Recorder:
        def run(self, jobs: list[Job], config: RunConfig, reporter: Reporter) -> list[JobResult]:  # noqa: ARG002
            self.job, self.config = jobs[0], config
            return [JobResult(jobs[0], error=InputError("stop"))]

    recorder = Recorder()
    with pytest.raises(InputError, match="stop"):
        process_upload(visitor, room_video, "offline", AppLimits(frames=7), SilentReporter(), recorder)
    assert (recorder.config.preset, recorder.config.video.max_frames) == ("offline", 7)
    assert recorder.job.folders.output.is_relative_to(visitor.folder)
    assert recorder.job.folders.working.is_relative_to(visitor.folder)
