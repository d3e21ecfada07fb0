"""Static summary of an inspection for saved notebooks: counts as a table and as text."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADS = ("Data set", "Records", "Kept", "Truncated", "Dropped", "Tokens", "In the loss", "In the loss, %")
KEYS = ("dataset", "records", "examples", "cut", "dropped", "tokens", "trained_tokens")
"""Keys of an overview for the first of `HEADS`."""
CELL = "padding: 2px 12px 2px 0; text-align: {}"


def table(overview: Mapping[str, Any]) -> list[list[str]]:
    """One row per data set, and a total if there are several, with a text for each of `HEADS`."""
    lines = [tuple(one[key] for key in KEYS) for one in overview["sets"]]
    if len(lines) > 1:
        lines.append(("All", *(sum(column) for column in list(zip(*lines, strict=True))[1:])))
    return [
        [str(name), *(f"{number:,}" for number in numbers), f"{100 * numbers[-1] / max(1, numbers[-2]):.0f} %"]
        for name, *numbers in lines
    ]


def summary_text(state: str, note: str, overview: Mapping[str, object]) -> str:
    """The counts (see `table`) as plain text, for frontends without HTML; there are none unless `state` is `ready`."""
    if state != "ready":
        return f"Inspect: {note or state}"
    lines = [HEADS, *table(overview)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def summary_html(state: str, note: str, overview: Mapping[str, object]) -> str:
    """The counts as an HTML table, with escaped names of data sets; for the arguments see `summary_text`."""
    if state != "ready":
        return f"<p>Inspect: {escape(note or state)}</p>"

    def row(tag: str, cells: list[str] | tuple[str, ...]) -> str:
        styled = (
            f'<{tag} style="{CELL.format("right" if place else "left")}">{escape(cell)}</{tag}>'
            for place, cell in enumerate(cells)
        )
        return f"<tr>{''.join(styled)}</tr>"

    body = "".join(row("td", line) for line in table(overview))
    return f"<table><thead>{row('th', HEADS)}</thead><tbody>{body}</tbody></table>"
