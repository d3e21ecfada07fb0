"""The monitor of a run as parts of plain JSON, shared by the kernel's widget and the Jupyter server."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llf_core.runs.plain_text import strip_bidi_nested
from llf_widgets.figures import packed
from llf_widgets.home import shown_path
from llf_widgets.monitor.event_log import log_lines
from llf_widgets.monitor.figure import figure_json
from llf_widgets.monitor.layout import CONFIG
from llf_widgets.monitor.status_text import front_end
from llf_widgets.monitor.timeline import PROMPTS
from llf_widgets.monitor.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.runs import RunFolder

PARTS = ("head", "charts", "answers", "samples", "events", "log")
ROWS, LOG_LINES = 200, 200
WIDEST, WATCHED = 100_000, PROMPTS  # steps of a smoothing window; prompts
FOLLOWS = {
    "head": {"status", "metrics", "events"},
    "charts": {"status", "metrics", "events"},
    "answers": {"answers"},
    "samples": {"answers"},
    "events": {"events"},
    "log": {"log"},
}
"""Files whose change affects a part."""


@dataclass(frozen=True)
class Options:
    """Display options of a reader.

    Attributes:
        details: whether to show diagnostic groups.
        window: smoothing window in steps; 0 for automatic, 1 for none.
        narrow: layout for less than 700 pixels.
        older: index of the sample prompt, from 1, whose older answers are requested; 0 for none.
    """

    details: bool = False
    window: int = 0
    narrow: bool = False
    older: int = 0

    def __post_init__(self) -> None:
        """Validate the options.

        Raises:
            ValueError: a number is negative, too large or not an integer.
        """
        for name, value, highest in (("window", self.window, WIDEST), ("older", self.older, WATCHED)):
            if type(value) is not int or not 0 <= value <= highest:
                raise ValueError(f"{name} is {str(value)[:40]}. Expected an integer from 0 to {highest}.")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Parse options from a front end; missing ones have defaults.

        Raises:
            ValueError: a number is negative, too large or not an integer.
        """
        whole = {name: given.get(name, 0) for name in ("window", "older")}
        return cls(details=given.get("details") is True, narrow=given.get("narrow") is True, **whole)


DEFAULT = Options()


class RunView:
    """The parts of a run's monitor, each with a version mark. Thread-safe.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.watch = Watch(folder)
        self._lock = threading.RLock()
        self._origin = secrets.token_hex(4)  # a mark of another process is never taken for one of this
        self._revisions = dict.fromkeys(PARTS, 0)
        self._charts: dict[Options, tuple[int, dict[str, Any]]] = {}
        self._created: float | None = None

    def look(self) -> set[str]:
        """Read new data. Returns the names of the changed parts."""
        with self._lock:
            changed = self.watch.look()
            if self._replaced():
                self.watch = Watch(self.watch.folder)
                self._origin, self._charts = secrets.token_hex(4), {}
                self.watch.look()
                return set(PARTS)
            parts = {name for name, sources in FOLLOWS.items() if changed & sources}
            for name in parts:
                self._revisions[name] += 1
            return parts

    def _replaced(self) -> bool:
        """Whether another run has replaced the folder since the last read."""
        before, now = self._created, self.watch.facts.created
        self._created = now or before
        return None not in {before, now} and before != now

    def part(self, name: str, options: Options = DEFAULT) -> Any:
        """One part as of the last read.

        Args:
            name: one of `PARTS`.
            options: display options.
        """
        with self._lock:
            return self._draw(options) if name == "charts" else strip_bidi_nested(PART[name](self.watch, options))

    def news(self, have: Mapping[str, object], options: Options = DEFAULT) -> dict[str, object]:
        """Read new data, then return the parts that the client lacks.

        Args:
            have: marks of the client's parts; invalid ones are ignored.
            options: display options.

        Returns:
            `now`: time of the read (Unix seconds); `marks`: mark of every part by name; `parts`: the parts whose mark
                differs.
        """
        with self._lock:
            self.look()
            marks = {name: f"{self._origin}.{revision}" for name, revision in self._revisions.items()}
            marks["charts"] += f".{options.details:d}.{options.window}.{options.narrow:d}"
            marks["answers"] += f".{options.older}"
            new = [name for name, mark in marks.items() if have.get(name) != mark]
            parts = {name: self.part(name, options) for name in new}
            return {"now": self.watch.now, "marks": marks, "parts": parts}

    def _draw(self, options: Options) -> dict[str, object]:
        """The charts for these options, cached until they change, since several pages may show one run."""
        options = replace(options, older=0)
        revision, window = self._revisions["charts"], options.window
        known = self._charts.get(options)
        if known is not None and known[0] == revision:
            return known[1]
        self._charts = {key: kept for key, kept in self._charts.items() if kept[0] == revision}
        # A mean of one step is no mean: the charts draw no second line then.
        curves = self.watch.curves(details=options.details, window={0: None, 1: 0}.get(window, window))
        drawn: dict[str, Any] = {
            "figure": packed(figure_json(curves, self.watch.facts.reach, narrow=options.narrow) | {"config": CONFIG}),
            "points": curves.points,
            "window": self.watch.window,
            "left_out": list(curves.left_out),
        }
        self._charts[options] = revision, strip_bidi_nested(drawn)
        return self._charts[options][1]


PART = {
    "head": lambda watch, _: front_end(watch.facts, watch.now),
    "answers": lambda watch, options: watch.answers.view(options.older),
    "samples": lambda watch, _: watch.completions.view(),
    "events": lambda watch, _: watch.rows(ROWS),
    "log": lambda watch, _: {"lines": log_lines(watch.log(LOG_LINES)), "path": shown_path(watch.folder.log)},
}
"""Builds each part except the charts."""
