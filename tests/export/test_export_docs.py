"""The Python of the export pages runs as it is printed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stf_depth.export import FORMATS, export_result
from stf_depth.result import DepthResult
from stf_depth.synthetic import render_clip, scene

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "exports.md", *sorted((DOCS / "recipes").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]


@pytest.fixture(scope="module")
def workplace(tiny_result: Path, make_result: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    large = render_clip(scene("room"), frames=2, wh=(640, 480))  # the pages name pixels of a usual frame
    for name, result in (("clip", tiny_result), ("walk", make_result(large, ambiguity="scale"))):
        shutil.copytree(result, folder / "data" / "output" / name)
    export_result(DepthResult(tiny_result), "png16", folder)
    export_result(DepthResult(tiny_result), "npz", folder / "release" / "clip")
    return folder


@pytest.mark.parametrize("block", BLOCKS)
def test_example_runs(block: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    exec(compile(block, "example", "exec"), {"__name__": "example"})


def test_page_lists_every_format() -> None:
    text = (DOCS / "exports.md").read_text(encoding="utf-8")
    assert not [name for name in FORMATS if f"`{name}`" not in text]


def test_pages_name_only_options_that_exist() -> None:
    known = set().union(*(form.option_names() for form in FORMATS.values()))
    for page in PAGES:
        for key in re.findall(r"--format [\w,-]+(?: --set (\w+)=\S+)", page.read_text(encoding="utf-8")):
            assert key in known, (page.name, key)
