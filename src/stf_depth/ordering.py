"""The order of numbered files: frames, maps and masks of one video must agree on it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

__all__ = ["files_in_order", "natural_key", "places_in_numbering"]

# Places for each file at most: a number of twenty digits must not become a gap of that length.
MOST_PLACES = 1000


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


def places_in_numbering(names: Sequence[str]) -> list[int] | None:
    """Where each file stands, counted from the first, by the last number in its name; None where that says nothing.

    Only a numbering in steps of one says which files are missing. names: in order, without suffix.

    >>> places_in_numbering(["a7", "a8", "a10"]), places_in_numbering(["a10", "a20", "a30"])
    ([0, 1, 3], None)
    """
    found = [re.findall(r"\d+", name) for name in names]
    if len(names) < 3 or not all(found):
        return None
    numbers = [int(one[-1]) for one in found]
    steps = [after - before for before, after in pairwise(numbers)]
    # Half of the steps are one, so more places than this is a name of another kind among them, not a gap.
    if min(steps) < 1 or median(steps) != 1 or numbers[-1] - numbers[0] >= MOST_PLACES * len(names):
        return None
    return [number - numbers[0] for number in numbers]
