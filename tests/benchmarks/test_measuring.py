"""Where figures come from, and peak memory that is a process's own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import measuring
import tables

SCRIPTS = Path(measuring.__file__).parent
CHILD = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import measuring; print(measuring.peak_memory_mb())"
# Touched, so that it is resident; more than the child has by far.
PARENT = "import subprocess, sys; ballast = b'x' * (800 << 20); subprocess.run([sys.executable, '-c', sys.argv[1]])"


def test_peak_memory_does_not_begin_with_that_of_the_process_that_started_this_one() -> None:
    done = subprocess.run([sys.executable, "-c", PARENT, CHILD], capture_output=True, text=True, check=True)
    assert 20 < float(done.stdout) < 600


def test_peak_memory_keeps_what_has_been_given_back() -> None:
    grow = CHILD + "; ballast = b'x' * (300 << 20); del ballast; print(measuring.peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", grow], capture_output=True, text=True, check=True)
    before, after = (float(line) for line in done.stdout.split())
    assert 250 < after - before < 350


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One commit of a source and a result."""
    for name in ("src/code.py", "benchmarks/speed.py", "benchmarks/results/speed.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n", encoding="utf-8")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    monkeypatch.setattr(tables, "REPOSITORY", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        (None, False),
        ("src/code.py", True),
        ("src/new.py", True),
        ("benchmarks/speed.py", True),
        ("benchmarks/results/speed.json", False),
    ],
)
def test_the_commit_says_whether_sources_have_changed_since(repository: Path, name: str | None, dirty: bool) -> None:
    if name is not None:
        (repository / name).write_text("2\n", encoding="utf-8")
    head = git(repository, "rev-parse", "--short", "HEAD")
    assert measuring.environment()["commit"] == head + ("-dirty" if dirty else "")


def test_outside_of_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "REPOSITORY", tmp_path)
    assert measuring.environment()["commit"] == "unknown"


def test_the_environment_has_what_the_tables_print() -> None:
    assert {"commit", "system", "cpu_count", "python"} <= measuring.environment().keys()


@pytest.mark.parametrize("name", ["quality", "causal", "masks", "movers", "speed", "memory", "scale"])
def test_results_take_their_environment_from_one_place(name: str) -> None:
    tree = ast.parse((SCRIPTS / f"{name}.py").read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "measuring"
        for alias in node.names
    }
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert "environment" in imported - defined
