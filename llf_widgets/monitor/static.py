"""What a saved notebook keeps of a run: one bundle that every host can show without a kernel."""

from __future__ import annotations

import base64
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

from llf_widgets.home import folder_of
from llf_widgets.monitor.figure import figure_json, json_ready
from llf_widgets.monitor.picture import picture
from llf_widgets.monitor.says import sentence
from llf_widgets.monitor.table import Summary, summary_html, summary_text
from llf_widgets.monitor.watch import Watch

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.launch import Run
    from llf_core.runs import RunFolder

PLOTLY = "application/vnd.plotly.v1+json"


def summary_bundle(run: Run | RunFolder | Path | str) -> dict[str, Any]:
    """A run's charts, picture, table and text, by MIME type. Only reads.

    Args:
        run: a run, its id or its folder.

    Returns:
        `application/vnd.plotly.v1+json`, `image/png` (base64), `text/html` (everything escaped), `text/plain`.

    Raises:
        FileNotFoundError: there is no such run.
    """
    watch = Watch(folder_of(run))
    watch.look()
    return bundle(watch)


def bundle(watch: Watch) -> dict[str, Any]:
    """The same for a run that is being watched already, as it was at the last look."""
    facts, curves = watch.facts, watch.curves()
    run = Summary(
        run_id=facts.id,
        name=facts.name or facts.id,
        state=facts.state,
        about=facts.about,
        says=sentence(facts),
        rows=watch.summary(),
        png=b"",
        answers=watch.answers.last(),
        samples=watch.completions.last(),
    )
    run = replace(run, png=picture(curves, facts.total, title=f"{run.name}, {run.state}", line=run.key_line))
    title = f"<b>{escape(run.name)}</b>, {escape(run.state)}<br><sup>{escape(run.key_line)}</sup>"
    return {
        PLOTLY: json_ready(figure_json(curves, facts.total, title=title)),
        "image/png": base64.b64encode(run.png).decode("ascii"),
        "text/html": summary_html(run),
        "text/plain": summary_text(run),
    }
