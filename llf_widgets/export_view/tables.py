"""The receipt of an export as tables, and as a summary for saved notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import with_unit
from llf_core.runs.formatting import duration, fixed, number, size, strip_bidi, strip_bidi_nested
from llf_core.runs.jsonl import as_number
from llf_core.untrusted import visible
from llf_widgets.cell_output import plain_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from llf_core.export import Receipt

CHECK_HEADS = ("Check", "Result", "Measured", "Limit")
MISSING = "-"


def _percent(value: float) -> str:
    return f"{fixed(100 * value, 1)} %"


COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("bytes", "Size", lambda value: " ".join(size(value))),
    ("kl", "KL divergence, nats", number),
    ("perplexity", "Perplexity", number),
    ("changed_greedy", "Changed greedy tokens", _percent),
    ("tokens_per_second", "Tokens per second", number),
)
"""Columns of the table of quantizations: key in the receipt, heading, number format."""


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """A receipt as texts, for the page and for the static summary.

    Returns:
        `passed`, `summary` (a sentence), `checks` (`cells` for `CHECK_HEADS`, `passed`, `detail`), `heads` and `rows`
        (`cells`) of the table of quantizations, and `bars` of its chart (`name`, `bytes`, `kl` in nats; None for a
        number that is missing or not finite).
    """
    found: dict[str, object] = strip_bidi_nested(
        {
            "passed": receipt.passed,
            "summary": _summary(receipt),
            "checks": [
                {
                    "cells": [
                        one.name,
                        "passed" if one.passed else "failed",
                        one.measured_text,
                        MISSING if one.limit is None else one.limit_text,
                    ],
                    "passed": one.passed,
                    "detail": one.detail,
                }
                for one in receipt.checks
            ],
            "heads": ["Quantization", *(head for _, head, _ in COLUMNS)],
            "rows": [{"cells": [str(row.get("quantization", "")), *_cells(row)]} for row in receipt.table],
            "bars": [
                {"name": str(row.get("quantization", "")), "bytes": _finite(row, "bytes"), "kl": _finite(row, "kl")}
                for row in receipt.table
            ],
        }
    )
    return found


def _summary(receipt: Receipt) -> str:
    count = len(receipt.checks)
    failed = len(receipt.failed)
    checks = f"{failed} of {with_unit(count, 'check')} failed" if failed else f"{with_unit(count, 'check')} passed"
    files = f"{with_unit(len(receipt.files), 'file')}, {' '.join(size(receipt.bytes))}. " if receipt.files else ""
    by = sorted({one.by for one in receipt.checks if one.by})
    read = f" Read back by {'; '.join(by)}." if by else ""
    return f"{checks}. {files}{duration(receipt.seconds)} in total.{read}"


def _cells(row: Mapping[str, object]) -> list[str]:
    found = []
    for key, _, form in COLUMNS:
        value = as_number(row.get(key))
        found.append(MISSING if value is None else form(value))
    return found


def _finite(row: Mapping[str, object], key: str) -> float | None:
    value = as_number(row.get(key))
    return value if value is not None and abs(value) < float("inf") else None


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
