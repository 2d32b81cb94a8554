"""The documents say what the code does."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def test_cli_reference_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "docs"))
    import make_cli_reference

    assert (REPOSITORY / "docs" / "cli.md").read_text() == make_cli_reference.reference()
    sys.modules.pop("make_cli_reference")


def pages() -> list[Path]:
    return sorted([*(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("*.md")])


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_navigation_lists_every_page() -> None:
    listed = set(re.findall(r"([\w/-]+\.md)", (REPOSITORY / "mkdocs.yml").read_text()))
    there = {str(page.relative_to(REPOSITORY / "docs")) for page in (REPOSITORY / "docs").rglob("*.md")}
    assert listed == there


@pytest.mark.parametrize("page", ["docs/concepts.md", "docs/index.md", "README.md"])
def test_named_presets_and_commands_exist(page: str) -> None:
    from stf_depth.config import PRESETS

    named = re.findall(r"--preset (\w+)", (REPOSITORY / page).read_text())
    assert set(named) <= set(PRESETS)


def test_nothing_names_a_machine() -> None:
    files = [*pages(), *(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "tests").rglob("*.py")]
    leaks = [str(file) for file in files if re.search(r"/(?:work|root|home)/\w", file.read_text(encoding="utf-8"))]
    assert leaks == []
