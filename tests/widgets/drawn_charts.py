"""Finds charts and traces in a Plotly figure by their names."""

from __future__ import annotations

from typing import Any


def axes_of(figure: dict[str, Any], title: str) -> dict[str, str]:
    """Names of a chart's axes: `x` and `y` as traces have them, `xaxis` and `yaxis` as the layout has them."""
    (found,) = [chart for chart in figure["layout"]["meta"]["charts"] if chart["title"] == title]
    return found


def x_axis(figure: dict[str, Any], title: str) -> dict[str, Any]:
    """The x axis of a chart in the layout."""
    return figure["layout"][axes_of(figure, title)["xaxis"]]


def y_axis(figure: dict[str, Any], title: str) -> dict[str, Any]:
    """The y axis of a chart in the layout."""
    return figure["layout"][axes_of(figure, title)["yaxis"]]


def traces_of(figure: dict[str, Any], title: str) -> list[dict[str, Any]]:
    """The traces on the axes of a chart."""
    axes = axes_of(figure, title)
    return [trace for trace in figure["data"] if (trace["xaxis"], trace["yaxis"]) == (axes["x"], axes["y"])]


def trace(figure: dict[str, Any], name: str) -> dict[str, Any]:
    """The trace of a name."""
    (found,) = [one for one in figure["data"] if one["name"] == name]
    return found


def texts(figure: dict[str, Any]) -> list[str]:
    """All annotations."""
    return [note["text"] for note in figure["layout"]["annotations"]]
