"""The order of numbered files: frames, maps and masks of one video must agree on it."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

__all__ = ["files_in_order", "natural_key"]


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key under which ``frame2`` comes before ``frame10``; names that differ in case alone keep one order.

    >>> sorted(["b10.png", "B9.png", "b9.png", "a11.png"], key=natural_key)
    ['a11.png', 'B9.png', 'b9.png', 'b10.png']
    """
    parts = re.split(r"([0-9]+)", name.casefold())
    # Not isdigit: a superscript is a digit that is no number.
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts), name


def files_in_order(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files of a folder with these suffixes, in lower case, in natural order; hidden files are left out."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return sorted((path for path in found if path.is_file()), key=lambda path: natural_key(path.name))
