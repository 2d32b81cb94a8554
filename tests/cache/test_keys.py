"""Every part of a key changes the key."""

from __future__ import annotations

import pytest

from stf_depth.cache import keys

BASE = {
    "version": 1,
    "input_digest": "i",
    "config": {"a": 1, "b": {"c": None}},
    "weights_digest": "w",
    "upstream": ("u", "v"),
}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"input_digest": "j"},
        {"config": {"a": 2, "b": {"c": None}}},
        {"config": {"a": 1, "b": {"c": None}, "d": 0}},
        {"weights_digest": "x"},
        {"upstream": ("v", "u")},
        {"upstream": ("u",)},
    ],
)
def test_every_part_counts(change: dict[str, object]) -> None:
    assert keys.stage_key("depth", **{**BASE, **change}) != keys.stage_key("depth", **BASE)  # type: ignore[arg-type]


def test_stage_name_and_schema_count(monkeypatch: pytest.MonkeyPatch) -> None:
    key = keys.stage_key("depth", **BASE)  # type: ignore[arg-type]
    assert keys.stage_key("semantic", **BASE) != key  # type: ignore[arg-type]
    monkeypatch.setattr(keys, "SCHEMA_VERSION", keys.SCHEMA_VERSION + 1)
    assert keys.stage_key("depth", **BASE) != key  # type: ignore[arg-type]


def test_order_of_config_does_not_count() -> None:
    turned = {**BASE, "config": {"b": {"c": None}, "a": 1}}
    assert keys.stage_key("depth", **turned) == keys.stage_key("depth", **BASE)  # type: ignore[arg-type]


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        keys.digest_json({"a": float("nan")})
