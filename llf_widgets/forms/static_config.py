"""The form's configuration as text, for saved notebooks without a kernel."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_NOTE = "LLF Studio. Run this cell again to open the form."


def config_text(yaml: str, run_ids: Sequence[str]) -> str:
    """Plain text with a hint how to open the form again, the ids of its started runs and its configuration."""
    started = f"\nStarted {', '.join(run_ids)}." if run_ids else ""
    return f"{_NOTE}{started}\n\n{yaml}"


def config_html(yaml: str, run_ids: Sequence[str]) -> str:
    """The same as `config_text` as HTML, with all values escaped."""
    codes = ", ".join(f"<code>{html.escape(run_id)}</code>" for run_id in run_ids)
    started = f" Started {codes}." if codes else ""
    return f"<p>{html.escape(_NOTE)}{started}</p>\n<pre><code>{html.escape(yaml)}</code></pre>"
