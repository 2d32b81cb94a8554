"""``quality.py --compare`` sees every published figure, and no comparison is not a passed one."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import measuring
import quality

KEY = ("street", "degraded", "fused")
ROW: dict[str, Any] = {
    "clip": "street",
    "depth": "degraded",
    "variant": "fused",
    "frames": 48,
    "seconds": 10.0,
    "flicker_percent": 0.5,
    "scores": {
        "counts": {"failed_frames": 0},
        "groups": {"affine": {"abs_rel": {"value": 0.1}, "tae": {"value": None, "reason": "no poses"}}},
    },
}


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    row = deepcopy(ROW)
    change(row)
    return row


def affine(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = row["scores"]["groups"]["affine"]
    return found


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda row: row.update(frames=12), "frames"),
        (lambda row: row.update(flicker_percent=0.6), "flicker_percent"),
        (lambda row: row.update(flicker_percent=None), "flicker_percent"),
        (lambda row: row.pop("flicker_percent"), "flicker_percent"),
        (lambda row: affine(row).update(abs_rel={"value": 0.2}), "affine abs_rel"),
        (lambda row: affine(row).pop("abs_rel"), "affine abs_rel"),
        (lambda row: affine(row).pop("tae"), "affine tae"),
        (lambda row: affine(row).update(rmse={"value": 1.0}), "affine rmse"),
        (lambda row: row["scores"]["groups"].update(scale={"tae": {"value": 1.0}}), "scale tae"),
        (lambda row: row["scores"]["counts"].update(failed_frames=1), "count of failed_frames"),
    ],
)
def test_every_difference_is_named_in_both_directions(change: Callable[[dict[str, Any]], object], named: str) -> None:
    other = changed(change)
    assert quality.differences(other, ROW) == [named]
    assert quality.differences(ROW, other) == [named]


def test_a_group_that_is_gone_is_a_difference_for_each_measure() -> None:
    assert quality.differences(changed(lambda row: row["scores"]["groups"].clear()), ROW) == [
        "affine abs_rel",
        "affine tae",
    ]


def test_times_and_commits_are_no_figures() -> None:
    assert quality.differences(changed(lambda row: row.update(seconds=99.0, commit="new")), ROW) == []


@pytest.mark.parametrize(
    ("measured", "code", "said"),
    [
        ([ROW], 0, "street / degraded / fused: the same figures"),
        ([changed(lambda row: row.update(flicker_percent=0.6))], 1, "street / degraded / fused: flicker_percent"),
        ([{"clip": "holowalk", "depth": "", "variant": "", "skipped": "not there"}], 1, "0 of 0 rows differ"),
        ([], 1, "0 of 0 rows differ"),
        ([{"clip": "holowalk", "depth": "", "variant": "", "skipped": "not there"}, ROW], 0, "0 of 1 rows differ"),
    ],
)
def test_compare_passes_only_where_rows_were_compared(
    measured: list[dict[str, Any]],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(quality, "rows", lambda *_: iter(measured))
    assert quality.compare(Namespace(), tmp_path, {KEY: ROW}) == code
    assert said in capsys.readouterr().out


def test_a_clip_that_is_not_there_is_told_and_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "SHARED", tmp_path)
    arguments = Namespace(clips=["redkitchen"])
    assert [row["skipped"] for row in quality.rows(arguments, tmp_path, lambda _: True)] == [quality.ABSENT]
    assert "redkitchen: skipped, not there" in capsys.readouterr().out


def test_every_row_of_a_run_has_the_commit_of_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Sources that change under a run are not what it measures.
    commits = iter(["begun", "changed since", "changed again"])
    monkeypatch.setattr(measuring, "commit", lambda: next(commits))

    def rows(*_: object) -> Iterator[dict[str, Any]]:
        for variant in ("per frame", "fused"):
            yield {**deepcopy(ROW), "variant": variant}

    monkeypatch.setattr(quality, "rows", rows)
    quality.measure(Namespace(skip_existing=False, frames=None), tmp_path, {}, tmp_path / "quality.json")
    found = quality.read_rows(tmp_path / "quality.json")
    assert {key[2]: row["commit"] for key, row in found.items()} == {"per frame": "begun", "fused": "begun"}
