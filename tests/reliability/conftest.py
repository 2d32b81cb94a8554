"""Whole runs of the command on tiny clips, and their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stf_depth.cli.main import main

# No network, no camera solve, no torch: what is tested is what becomes of files.
QUICK = ("--preset", "offline", "--panoptic", "none", "--fusion", "none", "--set", "geometry.enabled=false")
TIMED = ("manifest.json", "report.html", ".lock")

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run(inputs, *more, out=...)``: the command with its folders under ``out``; returns the exit code."""

    def execute(inputs: Path | list[Path], *more: str, out: Path = tmp_path) -> int:
        paths = [inputs] if isinstance(inputs, Path) else inputs
        places = ["--output-dir", str(out / "o"), "--working-dir", str(out / "w")]
        return main(["run", *map(str, paths), *QUICK, *places, *more])

    return execute


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder that holds no times, by relative path."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in TIMED)
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return read


@pytest.fixture(scope="session")
def room_depth(room_clip: object, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Disparity of the room as a specification: one map for each of its twelve frames."""
    path = tmp_path_factory.mktemp("depth") / "network.npz"
    disparity = (1 / room_clip.depth[:, ::2, ::2]).astype(np.float32)  # type: ignore[attr-defined]
    np.savez(path, depth=disparity, representation="disparity", ambiguity="scale")
    return f"precomputed:{path}"


@pytest.fixture
def one_error(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """The only error that was printed, on one line, without a stack trace."""

    def read() -> str:
        text = capfd.readouterr().err
        assert "Traceback" not in text, text
        errors = [line for line in text.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, text
        return errors[0]

    return read
