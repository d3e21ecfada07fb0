"""`llf.Monitor(run)`: the live view of a run, and what stays of it in the saved notebook."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from llf_core.runs import FINAL, home
from llf_core.runs.control import TYPES
from llf_core.runs.steering import check
from llf_widgets.examples.widget import Examples
from llf_widgets.home import compare, folder_of
from llf_widgets.monitor.journal import log_lines, rows
from llf_widgets.monitor.layout import CONFIG
from llf_widgets.monitor.live_figure import LiveFigure
from llf_widgets.monitor.parts import Answers, Head, Journal, More, Samples
from llf_widgets.monitor.pump import FASTEST, SLOWEST, Pump
from llf_widgets.monitor.says import front_end
from llf_widgets.monitor.static import bundle
from llf_widgets.monitor.watch import Watch

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.launch import Run
    from llf_core.runs import RunFolder

BEAT = 2.0  # seconds; the front end misses the kernel after 12
ROWS, LOG_LINES = 200, 200
SAMPLES_REST = 2.0  # seconds between two times that sampled answers are sent: they are long
SETTLE = 0.3  # seconds between the first sight of a final state and the last look
FEW_POINTS = 500  # so many points a line are redrawn at every look; more take their time in the browser


class Monitor(widgets.VBox):
    """Charts, numbers and steering of a run, live or past.

    It only reads the run's folder and drops requests into it, so any number of views may be open, in any kernel, and
    each may be closed at any time. After a kernel restart `llf.Monitor(run_id)` shows the run again.

    Args:
        run: a run, its id or its folder.
        home: `LLF_HOME` where it is not the environment's.

    Raises:
        FileNotFoundError: there is no such run.

    Example:
        >>> run = llf.train(config)
        >>> llf.Monitor(run)
    """

    def __init__(self, run: Run | RunFolder | Path | str, *, home: Path | str | None = None) -> None:
        self._watch = Watch(folder_of(run, home))
        self._watch.look()
        self._head = Head(self._steer)
        self._answers = Answers(self._watch.folder.id, self._steer)
        self._samples = Samples()
        self._journal = Journal(log_path=str(self._watch.folder.log))
        self._more = More()
        first = self._watch.curves(details=False)
        self._more.left_out = list(first.left_out)
        self._figure = LiveFigure(first, self._watch.facts.total, clicked=self.rows)
        self._figure._config = self._figure._config | CONFIG  # noqa: SLF001 - plotly's own door
        self._rows: Examples | None = None
        self._slots: list[Any] = []
        self._ended = threading.Event()
        self._drawn_at = 0.0
        self._stale = False
        super().__init__(children=self._parts())
        self.add_class("llf")
        self.add_class("llf-Monitor")
        self._more.observe(lambda _: self._pump.start(), "shows_all")  # the thread that draws looks at once
        self._view_count = 0  # from here on the front end counts the views
        self._show({"status", "events", "answers", "log"})
        self._pump = Pump(self._tick, self._say_trouble, f"llf-monitor-{self.run_id}")
        if self._watch.facts.state in FINAL:
            self._ended.set()
        else:
            self._pump.start()

    @property
    def run_id(self) -> str:
        """The id of the run that is shown."""
        return self._watch.folder.id

    @property
    def state(self) -> str:
        """The run's state as shown."""
        return self._watch.facts.state

    def wait(self, timeout: float | None = None) -> str:
        """Waits until the run has ended and the notebook holds its summary. An interrupt ends only the waiting.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            The run's state.
        """
        try:
            self._ended.wait(timeout)
        except KeyboardInterrupt:
            print(f"{self.run_id} goes on. Stop it with the button above, or with llf.attach({self.run_id!r}).stop()")  # noqa: T201 - the cell's answer
        return self.state

    def refresh(self) -> None:
        """Looks at the run again, also after its end: another view may have resumed it."""
        self._pump.start()

    def rows(self, step: int | None = None) -> Examples:
        """Shows the rows behind the curve below the charts: those of a step, else those that stand out."""
        if self._rows is None:
            self._rows = Examples(self._watch.folder)
            self.children = self._parts()
        if step is not None:
            self._rows.show_step(step)
        return self._rows

    def close(self) -> None:
        """Ends the view; the run is not touched."""
        self._pump.stop()
        for part in self._parts():
            part.close()
        super().close()

    def _parts(self) -> list[widgets.Widget]:
        """What the view is made of, from top to bottom."""
        rows = [] if self._rows is None else [self._rows]
        return [self._head, self._figure, self._more, *rows, self._samples, self._answers, self._journal]

    # -- following ---------------------------------------------------------------------------------------
    def _tick(self) -> float | None:
        before = self._watch.facts.state
        changed = self._watch.look()
        self._show(changed)
        state = self._watch.facts.state
        if state in FINAL:
            if changed or not self._ended.is_set():
                time.sleep(SETTLE)  # the last event may be written after the final state
                self._show(self._watch.look() | {"draw"})
                self._keep()
            return None
        if self._watch.facts.live:
            self._ended.clear()
            self._viewed = self._viewed or bool(self._view_count)
            return SLOWEST if self._viewed and self._view_count == 0 else FASTEST
        if state != before or not self._ended.is_set():
            self._keep()
        return SLOWEST

    def _show(self, changed: set[str]) -> None:
        """Brings the front end up to date with what the last look found."""
        watch = self._watch
        if not 0 <= watch.now - self._head.beat < BEAT:  # below 0: the clock was set back
            self._head.beat = watch.now
        if changed & {"status", "metrics", "events"}:
            self._head.view = front_end(watch.facts, watch.now)
        if "events" in changed:
            self._journal.rows = rows(watch.facts.events)[:ROWS]
        if "answers" in changed:
            self._answers.answers = watch.answers.view()
            self._sampled = True
        if self._sampled and ("draw" in changed or not 0 <= watch.now - self._sampled_at < SAMPLES_REST):
            self._samples.samples = watch.completions.view()
            self._sampled, self._sampled_at = False, watch.now
        if "status" in changed:
            self._answers.live = watch.facts.state == "running"
        if "log" in changed:
            self._journal.log = log_lines(watch.log(LOG_LINES))
        self._stale = self._stale or bool(changed & {"metrics", "events", "status"})
        rests = 0 <= watch.now - self._drawn_at < self._redraw_rest()
        details = self._more.shows_all
        if details != self._details or (self._stale and ("draw" in changed or not rests)):
            curves = watch.curves(details=details)
            self._more.left_out = list(curves.left_out)
            self._figure.show_curves(curves, watch.facts.total)
            self._drawn_at, self._stale, self._points, self._details = watch.now, False, curves.points, details

    def _redraw_rest(self) -> float:
        return FASTEST * max(1.0, self._points / FEW_POINTS)

    _points = 0
    _details = False  # whether the charts that are drawn are all that there are
    _sampled, _sampled_at = False, 0.0  # whether there are samples that the front end has not, and when it had some
    _viewed = False  # the front end's first count waits in the kernel while a cell runs

    def _say_trouble(self, text: str) -> None:
        self._head.trouble = text

    # -- steering ----------------------------------------------------------------------------------------
    def _steer(self, what: str, args: dict[str, Any]) -> str:
        """Acts on a request that came through the kernel."""
        if what in {"look", "server", "rows"}:
            return self._serve(what, args)
        from llf_core.launch import Run

        run = Run(self._watch.folder)
        if what in {"checkpoint", "evaluate", "sample", "set"}:
            run.ask(what, check(args) if what == "set" else {}, by="monitor")
            return f"{what.capitalize()} is asked through the kernel"
        if what == "stop":
            asked = run.stop(by="monitor")
            return "Stop is asked through the kernel" if asked else "The run has ended already"
        if what == "kill":
            return f"The run is {run.kill(by='monitor').state}"
        if what == "resume":
            run.resume()
            self.refresh()
            return "The run goes on"
        raise ValueError(f"{what!r} is no request. Expected one of {', '.join(TYPES)}, or resume.")

    def _serve(self, what: str, args: dict[str, Any]) -> str:
        """Does what concerns this view alone."""
        if what == "look":
            self.refresh()
        elif what == "rows":
            self.rows()
            return "The rows are below the charts"
        elif self._watch.folder.home == home():
            self._head.elsewhere = " ".join(compare(args))
        return ""

    # -- the saved notebook ------------------------------------------------------------------------------
    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget, with text for hosts that can't show it."""
        shown = super()._repr_mimebundle_(**kwargs) or {}
        return shown | {"text/plain": f"llf.Monitor({self.run_id!r})"}

    def _ipython_display_(self, **kwargs: Any) -> None:
        """Shows the view, and behind it an output for the saved notebook that is filled when the run ends."""
        from IPython.display import display

        display(self._repr_mimebundle_(**kwargs), raw=True)
        whole = bundle(self._watch)
        if self._watch.facts.live:
            whole = {"text/plain": whole["text/plain"]}
        self._slots.append(display(whole, raw=True, display_id=True))

    def _keep(self) -> None:
        """Puts the run's summary into every output of this view, then lets `wait` return."""
        if self._slots:
            whole = bundle(self._watch)
            for slot in self._slots:
                slot.update(whole, raw=True)
        self._ended.set()
