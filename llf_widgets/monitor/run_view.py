"""What a monitor shows of one run, in parts of plain JSON: the kernel's widget and the Jupyter server give the same."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any

from llf_widgets.figures import packed
from llf_widgets.monitor.figure import figure_json
from llf_widgets.monitor.journal import log_lines, rows
from llf_widgets.monitor.layout import CONFIG
from llf_widgets.monitor.says import front_end
from llf_widgets.monitor.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.runs import RunFolder

PARTS = ("head", "charts", "answers", "samples", "events", "log")
ROWS, LOG_LINES = 200, 200
FOLLOWS = {
    "head": {"status", "metrics", "events"},
    "charts": {"status", "metrics", "events"},
    "answers": {"answers"},
    "samples": {"answers"},
    "events": {"events"},
    "log": {"log"},
}
"""What must have changed in the folder for a part to be another one."""


class RunView:
    """The parts of one run's monitor, each with a mark that changes with it. May be used from any thread.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.watch = Watch(folder)
        self._lock = threading.RLock()
        self._origin = secrets.token_hex(4)  # a mark of another process is never taken for one of this
        self._revisions = dict.fromkeys(PARTS, 0)
        self._charts: dict[tuple[bool, int], tuple[int, dict[str, Any]]] = {}

    def look(self) -> set[str]:
        """Reads what is new in the folder; returns the names of the parts that changed."""
        with self._lock:
            changed = self.watch.look()
            parts = {name for name, sources in FOLLOWS.items() if changed & sources}
            for name in parts:
                self._revisions[name] += 1
            return parts

    def part(self, name: str, *, details: bool = False, window: int = 0) -> Any:
        """One part as it was at the last look.

        Args:
            name: one of `PARTS`.
            details: of `charts`, whether with those that are looked at only where something is odd.
            window: of `charts`, how many steps the smoothed lines are a mean of; 0 takes what suits the run.
        """
        with self._lock:
            if name == "charts":
                return self._draw(details, window)
            return PART[name](self.watch)

    def news(self, have: Mapping[str, Any], *, details: bool = False, window: int = 0) -> dict[str, Any]:
        """Looks, then gives what somebody lacks.

        Args:
            have: the marks that came with the parts which they hold; anything else counts as nothing.
            details: see `part`.
            window: see `part`.

        Returns:
            `now`: the time of the look (Unix seconds); `marks`: name -> mark of every part; `parts`: name -> part of
            those whose mark differs.
        """
        with self._lock:
            self.look()
            marks = {name: f"{self._origin}.{revision}" for name, revision in self._revisions.items()}
            marks["charts"] += f".{details:d}.{window}"
            new = [name for name, mark in marks.items() if have.get(name) != mark]
            parts = {name: self.part(name, details=details, window=window) for name in new}
            return {"now": self.watch.now, "marks": marks, "parts": parts}

    def _draw(self, details: bool, window: int) -> dict[str, Any]:
        """The charts for these options, kept until they change: several pages may look at one run."""
        revision = self._revisions["charts"]
        known = self._charts.get((details, window))
        if known is not None and known[0] == revision:
            return known[1]
        self._charts = {key: kept for key, kept in self._charts.items() if kept[0] == revision}
        # A mean of one step is no mean: the charts draw no second line then.
        curves = self.watch.curves(details=details, window={0: None, 1: 0}.get(window, window))
        drawn = {
            "figure": packed(figure_json(curves, self.watch.facts.total) | {"config": CONFIG}),
            "points": curves.points,
            "window": self.watch.window,
            "left_out": list(curves.left_out),
        }
        self._charts[details, window] = revision, drawn
        return drawn


PART = {
    "head": lambda watch: front_end(watch.facts, watch.now),
    "answers": lambda watch: watch.answers.view(),
    "samples": lambda watch: watch.completions.view(),
    "events": lambda watch: rows(watch.facts.events)[:ROWS],
    "log": lambda watch: {"lines": log_lines(watch.log(LOG_LINES)), "path": str(watch.folder.log)},
}
"""What makes each part but the charts."""
