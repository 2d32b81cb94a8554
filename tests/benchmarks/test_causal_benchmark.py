"""causal.py without the recorded clips, and interrupted."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import causal
import measuring
import quality
import tables

KINDS = ("per frame", "causal, lookahead 0", "causal, lookahead 3")


def row(clip: str, kind: str, abs_rel: float) -> dict[str, Any]:
    return {
        "clip": clip,
        "depth": "mild",
        "kind": kind,
        "abs_rel": abs_rel,
        "delta1": 0.9,
        "tae": None,
        "boundary_f1": 0.5,
    }


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the results; documents beside it, no recorded clip, and a scorer that takes no time."""
    (tmp_path / "docs").mkdir()
    text = "<!-- causal:begin -->\n<!-- causal:end -->\n"
    (tmp_path / "docs" / "performance.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(tables, "REPOSITORY", tmp_path)
    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    monkeypatch.setattr(causal, "RESULTS", tmp_path)
    monkeypatch.setattr(measuring, "commit", lambda: "new")
    monkeypatch.setattr(quality, "SHARED", tmp_path)
    monkeypatch.setattr(causal, "CLIPS", {name: lambda clip, *_: clip for name in quality.CLIPS})
    monkeypatch.setattr(causal, "rows_of", lambda clip, _: (row(clip, kind, 0.1) for kind in KINDS))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["causal.py", *arguments])
    causal.main()


def saved(results: Path, name: str = "causal") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    return found


def write_old(results: Path, *rows: dict[str, Any], **environment: str) -> None:
    content = {"environment": environment, "rows": rows}
    (results / "causal.json").write_text(json.dumps(content), encoding="utf-8")


def test_clips_that_are_not_there_are_skipped_and_said(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch)
    rows = saved(results)
    assert [row["clip"] for row in rows if "skipped" in row] == ["redkitchen", "holowalk"]
    assert {row["clip"] for row in rows if "skipped" not in row} == set(quality.CLIPS) - {"redkitchen", "holowalk"}
    assert "not there (set STF_DEPTH_SHARED)" in capsys.readouterr().out
    text = (results / "docs" / "performance.md").read_text(encoding="utf-8")
    assert "| street | mild | per frame | 0.1000 |" in text and "redkitchen" not in text


def test_a_skipped_clip_keeps_the_rows_that_it_has(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_old(results, row("redkitchen", "per frame", 0.3), commit="old")
    run(monkeypatch)
    kept = [row for row in saved(results) if row["clip"] == "redkitchen" and "skipped" not in row]
    assert [(row["abs_rel"], row["commit"]) for row in kept] == [(0.3, "old")]
    text = (results / "docs" / "performance.md").read_text(encoding="utf-8")
    assert "| redkitchen | mild | per frame | 0.3000 |" in text
    assert "at commit old, new." in text
    run(monkeypatch)
    assert len([row for row in saved(results) if row["clip"] == "redkitchen"]) == 2  # not skipped twice


def test_rows_are_saved_one_by_one_and_never_mixed_in_a_clip(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = [row(clip, kind, 0.3) for clip in ("street", "forward") for kind in KINDS]
    write_old(results, *old, commit="old")

    def interrupted(clip: str, _: Path) -> Iterator[dict[str, Any]]:
        yield row(clip, KINDS[0], 0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(causal, "rows_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, "--clips", "forward")
    found = [(row["clip"], row["kind"], row["commit"]) for row in saved(results)]
    assert found == [*(("street", kind, "old") for kind in KINDS), ("forward", KINDS[0], "new")]


def test_rows_from_before_commits_were_kept_are_of_an_unknown_one(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_old(results, row("street", "per frame", 0.3))
    run(monkeypatch, "--clips", "forward")
    assert [row["commit"] for row in saved(results)] == ["unknown", "new", "new", "new"]


def test_a_trial_changes_no_document(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (results / "docs" / "performance.md").read_text(encoding="utf-8")
    run(monkeypatch, "--clips", "forward", "--results", "trial")
    assert (results / "docs" / "performance.md").read_text(encoding="utf-8") == before
    assert len(saved(results, "trial")) == len(KINDS)
    assert not (results / "causal.json").exists()
