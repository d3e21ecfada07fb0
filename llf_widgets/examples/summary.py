"""Static table of training examples for saved notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from llf_core.runs.formatting import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEADS = ("Record", "Loss", "Text")
CELL = "padding:2px 12px 2px 0;text-align:{};vertical-align:top"


def summary_html(call: str, rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of the view as an HTML table with escaped text: `last` (the loss) and, if known, `record` and `segments`."""
    lines = [_row("td", _cells(row)) for row in rows]
    table = f"<table><thead>{_row('th', HEADS)}</thead><tbody>{''.join(lines)}</tbody></table>" if lines else ""
    return f'<div class="llf-Static">{table}<p>Run <code>{escape(call)}</code> to see the rows of the run.</p></div>'


def _cells(row: Mapping[str, Any]) -> tuple[str, str, str]:
    loss = row.get("last")
    text = "".join(part for part, _ in row.get("segments", ()))
    return str(row.get("record", "…")), "NaN" if loss is None else number(loss), text


def _row(tag: str, cells: Sequence[str]) -> str:
    sides = ("right", "right", "left")
    styled = (
        f'<{tag} style="{CELL.format(side)}">{escape(cell)}</{tag}>' for cell, side in zip(cells, sides, strict=True)
    )
    return f"<tr>{''.join(styled)}</tr>"
