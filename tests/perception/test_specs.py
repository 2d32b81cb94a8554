from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stf_depth.errors import SpecError
from stf_depth.perception.specs import BackendSpec, parse_spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", BackendSpec("none")),
        ("dpt-large", BackendSpec("name", "dpt-large")),
        (" dpt-large ", BackendSpec("name", "dpt-large")),
        ("dpt-large?weights=/a:b", BackendSpec("name", "dpt-large", {"weights": "/a:b"})),
        ("hf:Intel/dpt-large", BackendSpec("hf", "Intel/dpt-large")),
        ("onnx:a.onnx?x=1&y=z_depth", BackendSpec("onnx", "a.onnx", {"x": "1", "y": "z_depth"})),
        ("precomputed:/d/depth.npz", BackendSpec("precomputed", "/d/depth.npz")),
        ("precomputed:a?unit_m=1=2", BackendSpec("precomputed", "a", {"unit_m": "1=2"})),
    ],
)
def test_parse(text: str, expected: BackendSpec) -> None:
    assert parse_spec(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "  ", "hf:", "onnx:?a=b", "tensorrt:a.engine", "dpt-large?", "dpt-large?a", "dpt-large?a=", "x?a=1&a=2"],
)
def test_bad_specs_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_spec(text)


def test_an_existing_path_is_taken_whole(tmp_path: Path) -> None:
    odd = tmp_path / "depth?v=2.npz"
    odd.touch()
    assert parse_spec(f"precomputed:{odd}") == BackendSpec("precomputed", str(odd))


words = st.text("abcz019-_./", min_size=1, max_size=12)


@given(st.sampled_from(["hf", "onnx", "precomputed"]), words, st.dictionaries(words, words, max_size=3))
def test_printed_specs_parse_back(kind: str, target: str, options: dict[str, str]) -> None:
    spec = BackendSpec(kind, "no/such/" + target, options)  # type: ignore[arg-type]
    assert parse_spec(str(spec)) == spec
