"""Runs as a table for a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llf_core.runs.find import short_id
from llf_core.runs.formatting import DAY, HOUR, MINUTE, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.runs.listing import Row

HEAD = ("RUN", "NAME", "STATE", "STEP", "LOSS", "AGE")
RIGHT = {"STEP", "LOSS", "AGE"}
GAP = "  "
MIN_NAME_WIDTH = 10


def table(rows: Sequence[Row], known: Sequence[str], width: int, now: float | None = None) -> list[str]:
    """Format runs for a terminal: a header and one line each, with a second one for the reason of a run's state.

    For finished and stopped runs the second line is their finding instead, if there is one.

    Args:
        known: ids of all runs, to abbreviate ids unambiguously.
        width: line width in characters. Names are shortened in the middle; lines may still exceed it.
    """
    moment = time.time() if now is None else now
    cells = [HEAD, *(_cells(row, known, moment) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    others = sum(widths) - widths[1] + len(GAP) * (len(HEAD) - 1)
    widths[1] = min(widths[1], max(MIN_NAME_WIDTH, width - others))
    lines = [_line(cells[0], widths)]
    for row, line in zip(rows, cells[1:], strict=True):
        lines.append(_line(line, widths))
        told = row.finding if row.state in {"finished", "stopped"} else row.reason
        if told:
            lines.append(GAP + _end_cut(told, width - len(GAP)))
    return lines


def _cells(row: Row, known: Sequence[str], now: float) -> tuple[str, ...]:
    steps = f"{row.step:,}/{row.total:,}" if row.total else ""
    loss = "" if row.loss is None else number(row.loss)
    born = "" if row.created is None else age(now - row.created)
    return (short_id(row.id, known), " ".join(row.name.split()), row.state, steps, loss, born)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    parts = []
    for title, cell, width in zip(HEAD, cells, widths, strict=True):
        text = middle_cut(cell, width)
        parts.append(text.rjust(width) if title in RIGHT else text.ljust(width))
    return GAP.join(parts).rstrip()


def age(seconds: float) -> str:
    """Format an age in its largest unit: `12 s`, `7 min`, `3 h`, `5 d`; a negative one counts as 0."""
    whole = max(0, int(seconds))
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def middle_cut(text: str, width: int) -> str:
    """Shorten a text to `width` characters (at least 1) with `…` in the middle, since names differ at their ends."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def _end_cut(text: str, width: int) -> str:
    """Put a text on one line, shortened at the end with `…`, since the cause of a failure comes first."""
    first = " ".join(text.split())
    return first if len(first) <= width else f"{first[: max(0, width - 1)]}…"
