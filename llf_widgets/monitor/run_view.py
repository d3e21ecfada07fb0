"""The monitor of a run as sections of plain JSON, shared by the kernel's widget and the Jupyter server."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llf_core.runs.formatting import strip_bidi_nested
from llf_core.runs.listing import trained_json
from llf_widgets.home import display_path
from llf_widgets.monitor.completions import MAX_PROMPTS
from llf_widgets.monitor.event_log import log_lines
from llf_widgets.monitor.plotly_figure import figure_json
from llf_widgets.monitor.run_tracker import RunTracker
from llf_widgets.monitor.status_text import header_json
from llf_widgets.plotting.plotly_layout import CONFIG, encode_arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.runs import RunFolder

SECTIONS = ("head", "charts", "answers", "completions", "trained", "events", "log")
MAX_EVENT_ROWS, MAX_LOG_LINES = 200, 200
MAX_WINDOW, MAX_OLDER = 100_000, MAX_PROMPTS  # steps of a smoothing window; number of a sample prompt
SOURCES = {
    "head": {"status", "metrics", "events"},
    "charts": {"status", "metrics", "events"},
    "answers": {"answers"},
    "completions": {"answers"},
    "trained": {"events"},
    "events": {"events"},
    "log": {"log"},
}
"""Files whose change affects a section."""


@dataclass(frozen=True)
class ViewOptions:
    """Display options of a page, sent with each request, since several pages may show one run differently.

    Attributes:
        details: whether to show diagnostic charts.
        window: smoothing window in steps; 0 for automatic, 1 for none.
        narrow: layout for less than 700 pixels.
        older: index of the sample prompt, from 1, whose older answers are requested; 0 for none.
    """

    details: bool = False
    window: int = 0
    narrow: bool = False
    older: int = 0

    def __post_init__(self) -> None:
        for name, value, highest in (("window", self.window, MAX_WINDOW), ("older", self.older, MAX_OLDER)):
            if type(value) is not int or not 0 <= value <= highest:
                raise ValueError(f"{name} is {str(value)[:40]}. Expected an integer from 0 to {highest}.")

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> ViewOptions:
        """Parse options from a front end of any version; missing ones have defaults."""
        numbers = {name: given.get(name, 0) for name in ("window", "older")}
        return cls(details=given.get("details") is True, narrow=given.get("narrow") is True, **numbers)


DEFAULT = ViewOptions()


class RunView:
    """The sections of a run's monitor, each with a revision, so that only changed ones are sent. Thread-safe."""

    def __init__(self, folder: RunFolder) -> None:
        self.tracker = RunTracker(folder)
        self._lock = threading.RLock()
        self._origin = secrets.token_hex(4)  # a mark of another process is never taken for one of this
        self._counts = dict.fromkeys(SECTIONS, 0)
        self._charts: dict[ViewOptions, tuple[int, dict[str, Any]]] = {}
        self._created: float | None = None

    def refresh(self) -> set[str]:
        """Read new data, and return the names of changed sections; all if another run has replaced the folder."""
        with self._lock:
            changed = self.tracker.refresh()
            if self._replaced():
                self.tracker = RunTracker(self.tracker.folder)
                self._origin, self._charts = secrets.token_hex(4), {}
                self.tracker.refresh()
                return set(SECTIONS)
            sections = {name for name, sources in SOURCES.items() if changed & sources}
            for name in sections:
                self._counts[name] += 1
            return sections

    def _replaced(self) -> bool:
        before, now = self._created, self.tracker.snapshot.created
        self._created = now or before
        return None not in {before, now} and before != now

    def section(self, name: str, options: ViewOptions = DEFAULT) -> Any:
        """One section as plain JSON without bidirectional control characters.

        `log` and `trained` read their files now; the others show what `refresh` has read last.
        """
        with self._lock:
            return self._draw(options) if name == "charts" else strip_bidi_nested(BUILDERS[name](self.tracker, options))

    def updates(self, known: Mapping[str, object], options: ViewOptions = DEFAULT) -> dict[str, object]:
        """Read new data, then return the sections that the client lacks.

        Args:
            known: revisions of the client's sections; invalid ones are ignored.

        Returns:
            `now`: time of the read (Unix seconds); `revisions`: revision of every section by name; `sections`: those
            whose revision differs.
        """
        with self._lock:
            self.refresh()
            revisions = {name: f"{self._origin}.{revision}" for name, revision in self._counts.items()}
            revisions["charts"] += f".{options.details:d}.{options.window}.{options.narrow:d}"
            revisions["answers"] += f".{options.older}"
            new = [name for name, mark in revisions.items() if known.get(name) != mark]
            sections = {name: self.section(name, options) for name in new}
            return {"now": self.tracker.now, "revisions": revisions, "sections": sections}

    def _draw(self, options: ViewOptions) -> dict[str, object]:
        options = replace(options, older=0)
        revision, window = self._counts["charts"], options.window
        known = self._charts.get(options)
        if known is not None and known[0] == revision:
            return known[1]
        self._charts = {key: kept for key, kept in self._charts.items() if kept[0] == revision}
        # A mean of one step is no mean: the charts draw no second line then.
        data = self.tracker.chart_data(details=options.details, window={0: None, 1: 0}.get(window, window))
        drawn: dict[str, object] = {
            "figure": encode_arrays(
                figure_json(data, self.tracker.snapshot.last_step, narrow=options.narrow) | {"config": CONFIG}
            ),
            "points": data.points,
            "window": self.tracker.window,
            "left_out": list(data.left_out),
        }
        self._charts[options] = revision, strip_bidi_nested(drawn)
        return self._charts[options][1]


BUILDERS: dict[str, Callable[[RunTracker, ViewOptions], object]] = {
    "head": lambda tracker, _: header_json(tracker.snapshot, tracker.now),
    "answers": lambda tracker, options: tracker.answers.view(options.older),
    "completions": lambda tracker, _: tracker.completions.view(),
    "trained": lambda tracker, _: trained_json(tracker.folder, tracker.index.last("model")),
    "events": lambda tracker, _: tracker.rows(MAX_EVENT_ROWS),
    "log": lambda tracker, _: {
        "lines": log_lines(tracker.log(MAX_LOG_LINES)),
        "path": display_path(tracker.folder.log),
    },
}
