from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from llf_core.runs.plain_text import strip_bidi

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CELL_STYLE = "padding: 4px 12px 4px 0; text-align: left; vertical-align: top; white-space: pre-wrap"


def plain_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with escaped texts and without bidirectional controls, which could show a text in another order."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f'<{tag} style="{CELL_STYLE}">{escape(cell)}</{tag}>' for cell in cells) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    return strip_bidi(f"<table><thead>{line('th', heads)}</thead><tbody>{body}</tbody></table>")
