"""What a saved notebook keeps of a run: one bundle that every host can show without a kernel."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Any

from llf_widgets.monitor.figure import figure_json, json_ready
from llf_widgets.monitor.picture import picture
from llf_widgets.monitor.says import sentence
from llf_widgets.monitor.table import summary_html, summary_text
from llf_widgets.monitor.watch import Watch, folder_of

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
    facts = watch.facts
    says = sentence(facts)
    rows = watch.summary()
    curves = watch.curves()
    png = picture(curves, facts.total, title=f"{facts.name or facts.id}, {facts.state}", line=_key_line(rows))
    parts = {
        "run_id": facts.id,
        "name": facts.name or facts.id,
        "state": facts.state,
        "says": says,
        "rows": rows,
    }
    return {
        PLOTLY: json_ready(figure_json(curves, facts.total, title=_title(parts))),
        "image/png": base64.b64encode(png).decode("ascii"),
        "text/html": summary_html(about=facts.about, png=png, **parts),
        "text/plain": summary_text(**parts),
    }


def _title(parts: dict[str, Any]) -> str:
    """Name, state and the first numbers: JupyterLab shows the figure and none of the bundle's other parts."""
    name, state, numbers = (escape(text) for text in (parts["name"], parts["state"], _key_line(parts["rows"])))
    return f"<b>{name}</b>, {state}<br><sup>{numbers}</sup>"


def _key_line(rows: list[tuple[str, str, str]]) -> str:
    wanted = ("Training loss", "Evaluation loss", "Tokens", "Time")
    return ", ".join(f"{what.lower()} {value}" for what, value, _ in rows if what in wanted)
