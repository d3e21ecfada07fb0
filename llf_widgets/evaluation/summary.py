"""Static summary of an evaluation for saved notebooks: the table as HTML and as text."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from llf_core.untrusted import visible
from llf_widgets.plain_table import plain_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def summary_text(note: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as plain text, for frontends without HTML."""
    if not rows:
        return f"Evaluate: {note or 'no result yet'}"
    lines = []
    for row in rows:
        values = ", ".join(f"{name} {value['text']}" for name, value in zip(columns, row["values"], strict=True))
        verdicts = "; ".join(one["sentence"] for one in row["differences"])
        label = f"{row['group']}, {row['label']}" if row.get("group") else row["label"]
        lines.append(f"{label}: {values}" + (f" ({verdicts})" if verdicts else ""))
    return visible("\n".join(lines))


def summary_html(note: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as HTML without scripts; all texts are escaped."""
    if not rows:
        return f"<p>Evaluate: {escape(note or 'no result yet')}</p>"

    further = columns[1:] if len(columns) > 1 else ()
    head = ["Metric", *columns, *(f"{name} against {columns[0]}" for name in further)]
    body = [
        [
            f"{row['group']}: {row['label']}" if row.get("group") else str(row["label"]),
            *(f"{one['text']} ({one['interval']})" if one["interval"] else one["text"] for one in row["values"]),
            *(one["sentence"] for one in row["differences"]),
        ]
        for row in rows
    ]
    return plain_table(head, body)
