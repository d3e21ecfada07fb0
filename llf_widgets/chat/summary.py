"""Static text of a conversation for saved notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import with_unit
from llf_core.runs.plain_text import strip_bidi
from llf_core.untrusted import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

STYLE = "white-space:pre-wrap;margin:0 0 8px"


def summary_html(call: str, turns: Iterable[Mapping[str, object]]) -> str:
    """A conversation as HTML without scripts, for notebooks that are read without a kernel; all text is escaped."""
    lines = [f'<p style="{STYLE}"><b>{escape(who)}</b><br>{escape(text)}</p>' for who, text in _lines(turns)]
    return strip_bidi(
        f'<div class="llf-Static">{"".join(lines)}<p>Run <code>{escape(call)}</code> to continue the chat.</p></div>'
    )


def summary_text(call: str, turns: Iterable[Mapping[str, object]]) -> str:
    """A conversation as plain text, for hosts that show no HTML."""
    return visible("\n\n".join([call, *(f"{who}:\n{text}" for who, text in _lines(turns))]))


def _lines(turns: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for turn in turns:
        count = len(turn["pictures"])
        yield "You", "\n".join(filter(None, (turn["text"], f"({with_unit(count, 'picture')})" if count else "")))
        for reply in turn["replies"]:
            said = reply["error"] or reply["question"]
            text = reply["text"] or (said["message"] if said else "")
            yield reply["model"], "\n".join(filter(None, (text, reply["note"])))
