"""Full disks, folders that refuse, runs that meet, and signals: one line, the right exit code, and a resume."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stf_depth.api import configure, jobs_for, open_result, process_many
from stf_depth.cache.files import remove_partials
from stf_depth.cache.lock import folder_lock
from stf_depth.errors import OutputError
from stf_depth.pipeline.process import Delivery
from stf_depth.pipeline.progress import SilentReporter
from stf_depth.result import DepthResult

Contents = Callable[[Path], dict[str, bytes]]
Run = Callable[..., int]
Error = Callable[[], str]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """``mount(*options)`` mounts something on a new folder; the test is skipped, and counted, where that is refused."""
    place = tmp_path / "mounted"
    place.mkdir()

    def do(*options: str) -> Path:
        done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"mounting needs root: {done.stderr.strip()}")
        return place

    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting needs root")
    yield do
    subprocess.run(["umount", str(place)], capture_output=True, check=False)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
def test_full_disk_is_one_line_and_resumes(
    share: float,
    mount: Callable[..., Path],
    run: Run,
    room_video: Path,
    room_depth: str,
    tmp_path: Path,
    one_error: Error,
    contents: Contents,
) -> None:
    options = ("--depth", room_depth, "--inference-pickle")
    assert run(room_video, *options, out=tmp_path / "whole") == 0
    pages = sum(-(-len(data) // 4096) for data in contents(tmp_path / "whole").values())
    place = mount("-t", "tmpfs", "-o", f"size={max(4, round(pages * share)) * 4}k", "tmpfs")
    assert run(room_video, *options, out=place) == 1
    assert "space" in one_error().lower()
    subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
    assert run(room_video, *options, out=place) == 0
    assert contents(place) == contents(tmp_path / "whole")


def test_read_only_folder(
    mount: Callable[..., Path], run: Run, room_video: Path, room_depth: str, tmp_path: Path, one_error: Error
) -> None:
    place = mount("-t", "tmpfs", "-o", "ro", "tmpfs")
    assert run(room_video, "--depth", room_depth, out=place) == 1
    assert "read-only" in one_error()


@pytest.mark.parametrize("name", ["o", "w", "o/room", "w/room"])
def test_file_in_place_of_a_folder(
    name: str, run: Run, room_video: Path, room_depth: str, tmp_path: Path, one_error: Error
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    assert run(room_video, "--depth", room_depth) == 1
    assert "a file stands where a folder is needed" in one_error()
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("held", ["o", "w"])
def test_second_run_in_a_folder_is_refused(
    held: str, run: Run, room_video: Path, room_depth: str, tmp_path: Path, one_error: Error
) -> None:
    with folder_lock(tmp_path / held / "room"):
        assert run(room_video, "--depth", room_depth) == 1
    assert "another run is working in this folder" in one_error()
    assert run(room_video, "--depth", room_depth, "--quiet") == 0


def test_one_folder_for_results_and_cache(run: Run, room_video: Path, room_depth: str, tmp_path: Path) -> None:
    same = ["--output-dir", str(tmp_path / "x"), "--working-dir", str(tmp_path / "x")]
    assert run(room_video, "--depth", room_depth, "--quiet", *same) == 0
    assert len(open_result(tmp_path / "x" / "room")) == 12


def test_a_defect_with_a_full_disk_does_not_end_the_batch(
    run: Run, room_video: Path, room_depth: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_error: Error
) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("defect")

    monkeypatch.setattr("stf_depth.executors.local.process_video", fail)
    (tmp_path / "w").write_text("a file where the log should be")
    assert run(room_video, "--depth", room_depth) == 1
    assert "unexpected ZeroDivisionError" in one_error()


CRASH = (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")


@pytest.mark.parametrize("crashes", [True, False])
def test_a_file_on_which_the_last_run_died_is_tried_apart(
    crashes: bool,
    run: Run,
    room_video: Path,
    room_depth: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_error: Error,
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.mp4").write_bytes(room_video.read_bytes())
    (tmp_path / "w" / "b").mkdir(parents=True)
    (tmp_path / "w" / "b" / ".decoding").touch()
    if crashes:
        monkeypatch.setattr("stf_depth.pipeline.trial._COMMAND", CRASH)
    assert run(folder, "--depth", room_depth, "--no-visualize", "--quiet") == int(crashes)
    done = [name for name in ("a", "b", "c") if (tmp_path / "o" / name / "manifest.json").is_file()]
    assert done == (["a", "c"] if crashes else ["a", "b", "c"])
    if crashes:
        assert "the decoder crashes on this file" in one_error()
    assert (tmp_path / "w" / "b" / ".decoding").exists() == crashes


def started(arguments: list[str], root: Path, until: str) -> subprocess.Popen[str]:
    """The command as a process, once a file that matches ``until`` is there."""
    command = [sys.executable, "-m", "stf_depth", *arguments]
    # A suite that was started in the background hands down an ignored SIGINT.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, text=True, preexec_fn=heed)  # type: ignore[call-overload]
    while not any(root.glob(until)) and process.poll() is None:
        time.sleep(0.005)
    return process


@pytest.fixture(scope="session")
def long_input(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A clip whose fusion takes long enough to be interrupted."""
    from stf_depth.synthetic import render_clip, scene, write_video

    folder = tmp_path_factory.mktemp("long")
    clip = render_clip(scene("two_shots"), frames=64, wh=(96, 64))
    np.savez(folder / "d.npz", depth=(1 / clip.depth).astype("f4"), representation="disparity", ambiguity="scale")
    video = write_video(clip, folder / "clip.mp4")
    options = ["--preset", "offline", "--panoptic", "none", "--fusion", "flow", "--set", "geometry.enabled=false"]
    return ["run", str(video), *options, "--depth", f"precomputed:{folder / 'd.npz'}", "--no-visualize", "--quiet"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code", "says"), [(signal.SIGINT, 130, "run the same command again to resume"), (signal.SIGTERM, -15, "")]
)
@pytest.mark.parametrize("until", ["w/clip/cache/frames-*/done/*.json", "o/clip/.progress/identity.json"])
def test_interrupted_by_a_signal(
    sent: signal.Signals, code: int, says: str, until: str, long_input: list[str], tmp_path: Path
) -> None:
    arguments = [*long_input, "--output-dir", str(tmp_path / "o"), "--working-dir", str(tmp_path / "w")]
    process = started(arguments, tmp_path, until)
    process.send_signal(sent)
    out, error = process.communicate(timeout=300)
    assert process.returncode == code, (out, error)
    assert says in error
    assert "Traceback" not in error and "stack trace" not in error and "***" not in error, error
    again = subprocess.run([sys.executable, "-m", "stf_depth", *arguments], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert len(open_result(tmp_path / "o" / "clip")) == 64
    assert not [path for path in tmp_path.rglob("*") if ".partial" in path.name]


class StopAfter(SilentReporter):
    """Ends a run in the middle of a stage, as Ctrl-C would."""

    def __init__(self, stage: str) -> None:
        self._wanted, self._stage = stage, ""

    def stage(self, video: str, stage: str, total: int | None) -> None:
        del video, total
        self._stage = stage

    def advance(self, frames: int) -> None:
        if frames and self._stage == self._wanted:
            raise KeyboardInterrupt


def test_a_result_being_replaced_does_not_look_whole(room_video: Path, room_depth: str, tmp_path: Path) -> None:
    options = {"geometry.enabled": False, "fusion.mode": "none"}
    config = configure("offline", options, depth=room_depth, panoptic="none")
    other = configure("offline", {**options, "video.output_wh": (48, 32)}, depth=room_depth, panoptic="none")
    delivery = Delivery(visualize=False, standard=False)
    jobs = jobs_for([room_video], tmp_path / "o", tmp_path / "w", delivery)
    assert process_many(jobs, config)[0].error is None
    with pytest.raises(KeyboardInterrupt):
        process_many(jobs, other, reporter=StopAfter("fusion"))
    with pytest.raises(OutputError, match="unfinished"):
        open_result(tmp_path / "o" / "room")
    assert process_many(jobs, other)[0].error is None
    assert open_result(tmp_path / "o" / "room").depth.shape == (12, 32, 48)


def test_the_pickle_follows_the_model(run: Run, room_video: Path, room_depth: str, tmp_path: Path) -> None:
    from stf_depth.cache.inference_pickle import read_inference_pickle

    assert run(room_video, "--depth", room_depth, "--inference-pickle", "--no-visualize", "--quiet") == 0
    flat = tmp_path / "flat.npz"
    np.savez(flat, depth=np.full((12, 4, 6), 2, np.float32), representation="disparity", ambiguity="scale")
    assert run(room_video, "--depth", f"precomputed:{flat}", "--inference-pickle", "--no-visualize", "--quiet") == 0
    content = read_inference_pickle(tmp_path / "w" / "room" / "infer_result.pkl")
    assert content["depth"][0].shape == (4, 6)


def test_leftovers_of_every_kind_are_removed_and_nothing_else(tmp_path: Path) -> None:
    inner = tmp_path / "cache" / "depth-0" / "done"
    inner.mkdir(parents=True)
    kept = ["depth.mp4", "my.partial-notes.txt", "old-1", ".lock", "a.partial", "000000.json"]
    gone = [".partial-7-x.json", ".depth.partial-7.mp4", ".mesh_glb.old-7", "0." + "a" * 32 + ".partial"]
    for name in [*kept, *gone]:
        (inner / name).write_text("")
    (tmp_path / ".partial-9-stage").mkdir()
    (tmp_path / ".partial-9-stage" / "data").write_text("")
    remove_partials(tmp_path)
    assert sorted(path.name for path in inner.iterdir()) == sorted(kept)
    assert not (tmp_path / ".partial-9-stage").exists()


def test_the_same_command_gives_the_same_bytes(
    run: Run, room_video: Path, room_depth: str, tmp_path: Path, contents: Contents
) -> None:
    options = ("--depth", room_depth, "--fusion", "flow", "--export", "npz,png16", "--inference-pickle", "--quiet")
    for name in ("first", "second"):
        assert run(room_video, *options, out=tmp_path / name) == 0
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_a_fallback_is_labelled_everywhere(
    run: Run, still_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert run(still_video, "--depth", "motion", "--no-visualize") == 0
    table = capfd.readouterr().out
    manifest = json.loads((tmp_path / "o" / "still" / "manifest.json").read_text())
    sure = DepthResult(tmp_path / "o" / "still").confidence
    assert max(np.asarray(sure[index]).max() for index in range(len(sure))) <= 0.02
    reasons = [shot["fallback"] for shot in manifest["shots"]]
    assert all(reasons)
    assert "fallback" in "".join(table.split())
    assert "fallback" in (tmp_path / "o" / "still" / "report.html").read_text().lower()
    assert run(still_video, "--depth", "motion", "--no-visualize", "--log-json") == 0
    last = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert last["fallbacks"] == reasons


@pytest.fixture(scope="session")
def still_video(room_clip: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video in which nothing moves."""
    import av

    path = tmp_path_factory.mktemp("still") / "still.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(8):
            image = room_clip.rgb[0]  # type: ignore[attr-defined]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path
