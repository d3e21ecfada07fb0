"""JavaScript and CSS of the monitor, for the widget and for the Jupyter server."""

from __future__ import annotations

from functools import cache

from llf_widgets.figures import plotly_module
from llf_widgets.static import text

FILES = (
    "dom.js",
    "foreign_code.js",
    "server.js",
    "steps.js",
    "charts/chart.js",
    "monitor/feed.js",
    "monitor/head.js",
    "monitor/charts.js",
    "monitor/samples.js",
    "monitor/answers.js",
    "monitor/events.js",
    "monitor/monitor.js",
)


@cache
def module() -> str:
    """An ES module whose default export has `render`, see `static/monitor/monitor.js`."""
    return f"{plotly_module()}\n{text(*FILES)}"


def stylesheet() -> str:
    """The stylesheet of the monitor."""
    return text("llf.css", "charts/chart.css", "monitor.css")
