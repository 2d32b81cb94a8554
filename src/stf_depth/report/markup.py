"""HTML as text: every value is escaped where it enters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["NOTHING", "definition_list", "details", "number", "paragraph", "section", "table", "to"]

NOTHING = "\N{EN DASH}"


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A number for people; a dash where there is none.

    >>> number(1.25, 1), number(None) == NOTHING
    ('1.2', True)
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.{digits}f}" + (f"\N{NO-BREAK SPACE}{unit}" if unit else "")


def to(first: object, last: object) -> str:
    """A range of frames or times."""
    return f"{first}\N{EN DASH}{last}"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def section(name: str, title: str, *parts: str) -> str:
    """A titled part of the page; nothing when all parts are empty."""
    content = "\n".join(part for part in parts if part)
    if not content:
        return ""
    return f'<section id="{escape(name)}"><h2>{escape(title)}</h2>\n{content}\n</section>'


def definition_list(pairs: Iterable[tuple[str, str]], kind: str) -> str:
    """Names and values of plain text."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="{escape(kind)}">{rows}</dl>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, raw_columns: Sequence[int] = ()) -> str:
    """A table that scrolls sideways on narrow screens; columns in ``raw_columns`` hold markup, all others text."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = []
    for row in rows:
        cells = (cell if column in raw_columns else escape(cell) for column, cell in enumerate(row))
        body.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def details(title: str, content: str) -> str:
    """A part that opens on demand; ``content`` is markup."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"
