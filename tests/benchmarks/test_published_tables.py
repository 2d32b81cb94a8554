"""Rows that were measured at different commits are not published as if they compared."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import tables

MACHINE = {"commit": "new", "system": "Linux", "cpu_count": 2, "python": "3.11.7"}


def row(variant: str, commit: str, *, clip: str = "redkitchen", depth: str = "degraded") -> dict[str, Any]:
    scores = {"groups": {"affine": {"abs_rel": {"value": 0.025}}}}
    return {"clip": clip, "depth": depth, "variant": variant, "commit": commit, "scores": scores}


def content(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"command": "python benchmarks/quality.py", "environment": MACHINE, "rows": list(rows)}


def table(name: str) -> tables.Table:
    return next(one for one in tables.TABLES if one.name == name)


def test_rows_of_one_commit_name_it_once() -> None:
    found = table("ablations").markdown(content(row("fused", "new"), row("without grid", "new")))
    assert found.count("new") == 1
    assert "at commit new (Linux" in found
    assert "do not compare" not in found


@pytest.mark.parametrize(("fused", "ablated"), [("new", "old"), ("old", "new")])
def test_a_row_of_another_commit_than_the_fused_one_names_it(fused: str, ablated: str) -> None:
    rows = row("per frame", fused), row("fused", fused), row("without grid", ablated)
    found = table("ablations").markdown(content(*rows))
    assert f"| without grid (commit {ablated}) |" in found
    assert "| fused |" in found and "| per frame |" in found
    assert f"at commit {fused} (Linux" in found
    assert "do not compare exactly" in found


def test_the_row_before_the_fused_one_is_the_one_that_is_marked() -> None:
    found = table("scenes").markdown(content(row("per frame", "old"), row("fused", "new")))
    assert "| per frame (commit old) |" in found
    assert "| fused |" in found


def test_another_clip_and_depth_may_be_of_another_commit() -> None:
    rows = row("fused", "new"), row("fused", "old", clip="holowalk"), row("fused", "older", depth="motion")
    found = table("scenes").markdown(content(*rows))
    assert "at commit new, old, older (Linux" in found
    assert "(commit " not in found and "do not compare" not in found


def test_without_a_fused_row_the_first_one_is_what_others_are_read_against() -> None:
    found = table("ablations").markdown(content(row("flow only", "new"), row("without grid", "old")))
    assert "| flow only |" in found
    assert "| without grid (commit old) |" in found


def test_a_row_without_a_commit_is_of_the_one_of_its_file() -> None:
    bare = {key: value for key, value in row("without grid", "").items() if key != "commit"}
    assert "(commit " not in table("ablations").markdown(content(row("fused", "new"), bare))


def test_a_table_does_not_warn_of_rows_that_it_leaves_out() -> None:
    rows = row("per frame", "new"), row("fused", "new"), row("without grid", "old")
    assert "do not compare" not in table("scenes").markdown(content(*rows))


def test_the_korean_table_marks_in_korean() -> None:
    korean = next(one for one in tables.TABLES if one.document.name == "README.ko.md")
    found = korean.markdown(content(row("per frame", "old"), row("fused", "new")))
    assert "| 프레임별 (커밋 old) |" in found
    assert korean.warning in found and korean.warning != table("quality").warning


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A document with one table, made from a file in which rows do not compare."""
    document = tmp_path / "fusion.md"
    document.write_text("before\n<!-- ablations:begin -->\n<!-- ablations:end -->\nafter\n", encoding="utf-8")
    results = tmp_path / "quality.json"
    rows = row("fused", "new"), row("without grid", "old"), row("without sky", "old")
    results.write_text(json.dumps(content(*rows)), encoding="utf-8")
    monkeypatch.setattr(tables, "REPOSITORY", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", results)
    monkeypatch.setattr(tables, "TABLES", (tables.Table("ablations", document, tables.is_ablated),))
    return document


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tables.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        tables.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_check_fails_before_the_table_is_written_and_passes_after(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = published.read_text(encoding="utf-8")
    assert run(monkeypatch, "--check") == 1
    assert published.read_text(encoding="utf-8") == empty
    assert run(monkeypatch) == 0
    assert "| without grid (commit old) |" in published.read_text(encoding="utf-8")
    assert run(monkeypatch, "--check") == 0


def test_rows_that_do_not_compare_are_told_on_the_terminal(
    published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch)
    assert "warning: redkitchen / degraded: 2 row(s) of commit old" in capsys.readouterr().err
