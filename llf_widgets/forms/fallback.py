"""What a saved notebook says of the form where no kernel runs: the configuration as text."""

from __future__ import annotations

import html

_NOTE = "LLF Studio. Run this cell again to open the form."


def plain(yaml: str, run_id: str | None) -> str:
    """The configuration for a terminal, and for a reader of the file."""
    started = f"\nStarted {run_id}." if run_id else ""
    return f"{_NOTE}{started}\n\n{yaml}"


def static_html(yaml: str, run_id: str | None) -> str:
    """The same as HTML; every value is escaped."""
    started = f" Started <code>{html.escape(run_id)}</code>." if run_id else ""
    return f"<p>{html.escape(_NOTE)}{started}</p>\n<pre><code>{html.escape(yaml)}</code></pre>"
