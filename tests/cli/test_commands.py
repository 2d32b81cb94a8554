"""The command line: exit codes, one-line errors, and the original interface to the letter."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from stf_depth import __version__
from stf_depth.cli.main import main
from stf_depth.cli.original import main as original_main
from stf_depth.cli.reporters import RichReporter

QUICK = ["--preset", "offline", "--set", "geometry.enabled=false", "--set", "video.working_long_side_px=96"]


@pytest.fixture
def depth_npz(room_clip: object, tmp_path: Path) -> Path:
    """Noisy disparity of the room, one map for each of its twelve frames."""
    depth = room_clip.depth  # type: ignore[attr-defined]
    path = tmp_path / "network.npz"
    disparity = (1 / depth).astype(np.float32)
    np.savez(path, depth=disparity, representation="disparity", ambiguity="scale")
    return path


def run(inputs: list[Path | str], out: Path, depth: Path, *more: str) -> int:
    arguments = ["run", *map(str, inputs), *QUICK, "--panoptic", "none", "--depth", f"precomputed:{depth}"]
    return main([*arguments, "--output-dir", str(out / "o"), "--working-dir", str(out / "w"), *more])


def test_run_then_reuse_then_npz(
    room_video: Path, depth_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([room_video], tmp_path, depth_npz, "--export", "npz", "--no-visualize") == 0
    with np.load(tmp_path / "o" / "room" / "depth.npz", allow_pickle=False) as content:
        assert content["depth"].shape == (12, 64, 96)
        assert content["depth"].dtype == np.float32
        assert content["valid"].dtype == bool
        assert content["pts_seconds"].dtype == np.float64
        assert (str(content["representation"]), str(content["ambiguity"])) == ("disparity", "scale")
    for name in ("depth.zarr", "depth.mp4", "comparison.mp4", "report.html", "manifest.json"):
        assert (tmp_path / "o" / "room" / name).exists(), name
    capsys.readouterr()
    assert run([room_video], tmp_path, depth_npz, "--export", "npz", "--no-visualize") == 0
    assert "reused" in capsys.readouterr().out


def test_one_bad_input_does_not_stop_the_others(
    room_video: Path, depth_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.mp4").write_bytes(room_video.read_bytes())
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is not a video")
    assert run([tmp_path / "absent.mp4", folder], tmp_path, depth_npz, "--no-visualize") == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 3
    assert any("absent.mp4" in line for line in errors)
    assert any("empty.mp4" in line for line in errors)
    assert any("text.mp4" in line for line in errors)
    assert (tmp_path / "o" / "good" / "manifest.json").is_file()
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["good"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "{missing}"], 1, "no such file"),
        (["run", "{empty}"], 1, "{empty}"),
        (["run", "{video}", "--preset", "ofline"], 2, "offline"),
        (["run", "{video}", "--depth", "dpt-lage"], 2, "dpt-large"),
        (["run", "{video}", "--set", "fusion.mod=flow"], 2, "mode"),
        (["run", "{video}", "--set", "fusion"], 2, "KEY=VALUE"),
        (["run", "{video}", "--export", "exx"], 2, "exr"),
        (["run", "{video}", "--size", "big"], 2, "WxH"),
        (["run", "{video}", "--executor", "slurm"], 2, "local or ray"),
        (["run", "{video}", "--preset", "offline", "--device", "cuda:9"], 2, "device"),
        (["run", "{video}", "--unknown"], 2, "--unknown"),
        (["evaluate"], 2, "nothing to score"),
        (["evaluate", "{video}"], 2, "no ground truth"),
        (["run", "{video}", "--preset", "offline", "--depth", "none"], 2, "without depth"),
        (["run", "{video}", "--preset", "offline", "--flow", "none"], 2, "without flow"),
        (["run", "{video}", "--preset", "offline", "--set", "alignment.spans=[]"], 2, "alignment.spans"),
        (["run", "{video}", "--preset", "offline", "--set", "video.output_wh=0,0"], 2, "video.output_wh"),
        (["cache", "destroy"], 2, "list or clear"),
        (["models", "depht"], 2, "depth, semantic, panoptic, flow"),
        (["run", "{video}", "--mode", "causal", "--executor", "ray"], 2, "--executor"),
        (["run", "{video}", "--mode", "causal", "--ray-address", "auto"], 2, "--ray-address"),
        (["run", "{video}", "--mode", "causal", "--resume"], 2, "--resume"),
        (["run", "{video}", "--mode", "causal", "--visualize"], 2, "--visualize"),
        (["run", "{video}", "--mode", "causal", "--inference-pickle"], 2, "--mode offline"),
        (["export", "{empty}", "--format", "npz"], 1, "no depth result"),
        (["export", "{empty}", "--format", ""], 2, "--format"),
        (["export", "{empty}"], 2, "--format"),
        (["run", "{video}", "--max-frames", "x"], 2, "--max-frames"),
        (["run", "-dash.mp4"], 2, "./-dash.mp4, or after --"),
        (["run", "{video}", "--preset", "offline", "--start", "2", "--end", "1"], 2, "after the start at 2.0 s"),
        (["evaluate", "{video}", "--sequence", "{empty}", "--plot", "p.png"], 2, "no use for --plot"),
        (["evaluate", "{video}", "--sequence", "{empty}", "--view", "full"], 2, "no use for --view"),
        (["evaluate", "{video}", "--sequence", "{empty}", "--setting", "all"], 2, "no use for --setting"),
        (["evaluate", "{video}", "--sequence", "{empty}", "--masks", "m"], 2, "no use for --masks"),
        (["evaluate", "{video}", "--sequence", "{empty}", "--dataset", "kitti"], 2, "--sequence and --dataset"),
        (["evaluate", "{video}", "--sequence", "{empty}", "--self", "r"], 2, "--self and --sequence"),
        (["evaluate", "{video}", "--self", "{empty}"], 2, "no use for PREDICTION"),
        (["evaluate", "{video}", "--dataset", "kitti", "--root", "{empty}", "--view", "sideways"], 2, "view"),
    ],
)
def test_errors_are_one_line_with_advice(
    arguments: list[str], code: int, says: str, room_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"missing": str(tmp_path / "absent.mp4"), "empty": str(tmp_path / "empty"), "video": str(room_video)}
    folders = (
        ["--output-dir", str(tmp_path / "o"), "--working-dir", str(tmp_path / "w")] if arguments[0] == "run" else []
    )
    assert main([argument.format(**places) for argument in arguments] + folders) == code
    error = capsys.readouterr().err
    assert says.format(**places) in error
    assert "Traceback" not in error


def test_weights_that_cannot_be_had_name_the_way_out(
    room_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    code = main(["run", str(room_video), "--depth", "dpt-large", "--semantic", "none", "--panoptic", "none"])
    error = capsys.readouterr().err
    assert code == 1
    assert "Intel/dpt-large" in error
    assert "--preset offline" in error


def test_unwritable_output_is_one_line(
    room_video: Path, depth_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "o").write_text("a file where the folder should be")
    assert run([room_video], tmp_path, depth_npz) == 1
    assert "Choose another folder" in capsys.readouterr().err


def test_log_json_is_one_object_a_line(
    room_video: Path, depth_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([room_video], tmp_path, depth_npz, "--no-visualize", "--log-json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    result = events[-1]
    assert result["event"] == "result"
    assert (result["frames"], result["shots"], result["status"]) == (12, 1, "done")
    assert {event["event"] for event in events} >= {"stage", "progress", "result"}


def test_quiet_prints_nothing(
    room_video: Path, depth_npz: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([room_video], tmp_path, depth_npz, "--no-visualize", "--quiet") == 0
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_original_interface_writes_the_original_layout(room_video: Path, depth_npz: Path, tmp_path: Path) -> None:
    folder = tmp_path / "A"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(room_video.read_bytes())
    places = ["--input_dir", str(folder), "--output_dir", str(tmp_path / "B"), "--working_dir", str(tmp_path / "C")]
    more = [*QUICK, "--depth", f"precomputed:{depth_npz}"]
    assert original_main([*places, *more]) == 0
    working = tmp_path / "C" / "clip"
    for name in ("frames", "depth", "segment", "segment_detail"):
        assert len(list((working / name).iterdir())) == 12, name
    assert (working / "infer_result.pkl").is_file()
    assert (tmp_path / "B" / "clip" / "depth.zarr").is_dir()


def test_visualize_of_the_original_turns_images_off(room_video: Path, depth_npz: Path, tmp_path: Path) -> None:
    folder = tmp_path / "A"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(room_video.read_bytes())
    places = ["--input_dir", str(folder), "--output_dir", str(tmp_path / "B"), "--working_dir", str(tmp_path / "C")]
    assert original_main([*places, *QUICK, "--depth", f"precomputed:{depth_npz}", "--visualize"]) == 0
    assert not any((tmp_path / "C" / "clip" / name).exists() for name in ("frames", "depth", "segment"))
    assert (tmp_path / "C" / "clip" / "infer_result.pkl").is_file()


def test_help_of_the_original_says_that_visualize_turns_off(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        original_main(["--help"])
    assert "OFF" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["models", "doctor", "cache"])
def test_information_commands(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    more = {"models": [], "doctor": ["--no-hub"], "cache": ["list", "--working-dir", str(tmp_path)]}[command]
    assert main([command, *more]) == 0
    expected = {"models": "depth-anything-v2-small", "doctor": "decoders", "cache": "0 video(s)"}[command]
    assert expected in capsys.readouterr().out


def test_cache_clear_frees_the_stages(
    room_video: Path, depth_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run([room_video], tmp_path, depth_npz, "--no-visualize", "--quiet")
    assert main(["cache", "clear", "--working-dir", str(tmp_path / "w")]) == 0
    assert not (tmp_path / "w" / "room" / "cache").exists()
    assert (tmp_path / "o" / "room" / "depth.zarr").is_dir()
    assert "1 video(s) cleared" in capsys.readouterr().out


def test_cache_clear_takes_nothing_else(depth_npz: Path, room_video: Path, tmp_path: Path) -> None:
    run([room_video], tmp_path, depth_npz, "--no-visualize", "--quiet")
    mine = [
        tmp_path / "w" / name / "mine.txt"
        for name in ("room/cache", "room/cache/notes", "room/windows/2024", "project/cache", "project/windows/20240101")
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert main(["cache", "clear", "--working-dir", str(tmp_path / "w")]) == 0
    assert [path.read_text() for path in mine] == ["mine"] * 5
    assert sorted(path.name for path in (tmp_path / "w" / "room" / "cache").iterdir()) == ["mine.txt", "notes"]


def test_cache_says_that_there_is_no_such_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "clear", "--working-dir", str(tmp_path), "--video", "typo"]) == 1
    assert "no video of this name" in capsys.readouterr().err


def test_names_that_look_like_markup(
    room_video: Path,
    depth_npz: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    out = tmp_path / "o2[" / "b]"
    (tmp_path / "[dQw4w9WgXcQ].mp4").symlink_to(room_video)
    assert run([tmp_path / "[dQw4w9WgXcQ].mp4"], out, depth_npz, "--no-visualize") == 0
    told = capsys.readouterr().out
    assert "[dQw4w9WgXcQ]" in told and str(out / "o") in told
    assert main(["cache", "list", "--working-dir", str(out / "w")]) == 0
    told = "".join(capsys.readouterr().out.split())
    assert "[dQw4w9WgXcQ]" in told and str(out / "w") in told
    console = Console(file=StringIO(), width=100, force_terminal=True)
    with RichReporter(console) as reporter:
        reporter.stage("[/b]", "[x]", 3)
        reporter.message("[/b]", ":smile:")
    assert "[/b]: :smile:" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_version_and_the_help_are_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"stf-depth {__version__}\n"
    assert main([]) == 2
    shown = capsys.readouterr()
    assert "error" not in shown.err and "evaluate" in shown.out + shown.err


def test_module_entry_point() -> None:
    done = subprocess.run([sys.executable, "-m", "stf_depth", "--help"], capture_output=True, text=True, check=True)
    assert "evaluate" in done.stdout
