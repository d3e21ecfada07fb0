"""A run's summary as HTML that needs no stylesheet: table, picture and the calls to go on with."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CELL = "padding:2px 12px 2px 0;text-align:left;vertical-align:top;border:0"
NUMBER = "padding:2px 12px 2px 0;text-align:right;vertical-align:top;border:0;white-space:nowrap"


def summary_html(
    *,
    run_id: str,
    name: str,
    state: str,
    about: str,
    says: str,
    rows: Sequence[tuple[str, str, str]],
    png: bytes,
) -> str:
    """One block of HTML; every text is escaped, since names and reasons come from outside.

    Args:
        run_id: the run's id.
        name: what people call it.
        state: its state in a word.
        about: model, method and data.
        says: the state's sentence.
        rows: (what, value, comparison).
        png: the picture, put in as a data URL, since hosts that show HTML show no second output beside it.
    """
    cells = "".join(
        f'<tr><td style="{CELL}">{escape(what)}</td><td style="{NUMBER}"><b>{escape(value)}</b></td>'
        f'<td style="{CELL}">{escape(note)}</td></tr>'
        for what, value, note in rows
    )
    image = base64.b64encode(png).decode("ascii")
    text = f"Training and evaluation loss of {name}"
    return (
        f'<div class="llf-Static"><p><b>{escape(name)}</b> · {escape(state)} · {escape(about)}</p><p>{escape(says)}</p>'
        f'<table style="border-collapse:collapse"><tbody>{cells}</tbody></table>'
        f'<img alt="{escape(text)}" style="max-width:100%;width:740px" src="data:image/png;base64,{image}">'
        f"<p>Live view: <code>llf.Monitor({escape(repr(run_id))})</code></p></div>"
    )


def summary_text(*, run_id: str, name: str, state: str, says: str, rows: Sequence[tuple[str, str, str]]) -> str:
    """The same for a terminal or a text-only host."""
    width = max((len(what) for what, _, _ in rows), default=0)
    lines = [f"{name}: {state}. {says}".rstrip()]
    lines += [f"  {what:<{width}}  {value}  {note}".rstrip() for what, value, note in rows]
    return "\n".join([*lines, f"Live view: llf.Monitor({run_id!r})"])
