"""Static summary of an export for saved notebooks: the receipt as text and as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from llf_core.runs.plain_text import strip_bidi
from llf_core.untrusted import visible
from llf_widgets.export_view.tables import CHECK_HEADS
from llf_widgets.plain_table import plain_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def summary_text(title: str, note: str, folder: str, receipt: Mapping[str, Any]) -> str:
    """The receipt as plain text, for frontends without HTML.

    Args:
        note: the state as a sentence; empty once the export is finished.
        folder: the destination; empty if nothing was written.
        receipt: see `receipt_json`; empty without one.
    """
    lines = [f"{title}: {note}" if note else title, *([folder] if folder else [])]
    if receipt:
        lines += [receipt["summary"], *_columns([CHECK_HEADS, *(one["cells"] for one in receipt["checks"])])]
        if receipt["rows"]:
            lines += ["", *_columns([receipt["heads"], *(one["cells"] for one in receipt["rows"])])]
    return visible("\n".join(lines))


def summary_html(title: str, note: str, folder: str, receipt: Mapping[str, Any]) -> str:
    """The receipt as HTML without scripts, with all texts escaped; for the arguments see `summary_text`."""
    parts = [f"<p>{escape(f'{title}: {note}' if note else title)}</p>"]
    if folder:
        parts.append(f"<p><code>{escape(folder)}</code></p>")
    if receipt:
        parts.append(f"<p>{escape(receipt['summary'])}</p>")
        parts.append(plain_table(CHECK_HEADS, [one["cells"] for one in receipt["checks"]]))
        if receipt["rows"]:
            parts.append(plain_table(receipt["heads"], [one["cells"] for one in receipt["rows"]]))
    return strip_bidi("".join(parts))


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    found = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*found, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in found]
