"""`llf.Monitor(run)`: the live view of a run, and its summary in the saved notebook."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from llf_core.runs import FINAL, home
from llf_core.runs.change_journal import check_changes
from llf_core.runs.control import REQUEST_TYPES
from llf_core.runs.foreign_code import code_as_json, code_to_allow
from llf_widgets.close_parts import close_parts
from llf_widgets.examples.widget import Examples
from llf_widgets.home import compare, folder_of, home_hash
from llf_widgets.monitor.parts import MonitorView
from llf_widgets.monitor.poller import FASTEST, SLOWEST, Pump
from llf_widgets.monitor.run_view import PARTS, Options, RunView
from llf_widgets.monitor.static import bundle, first_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.launch import Run
    from llf_core.runs import RunFolder

BEAT = 2.0  # seconds; the front end misses the kernel after 12
SAMPLES_REST = 2.0  # seconds between two times that sampled answers are sent: they are long
KEEP_FIRST = 30.0  # seconds between the first two times that a live run's picture goes into the notebook
SETTLE = 0.3  # seconds between the first sight of a final state and the last look
FEW_POINTS = 500  # so many points a line are redrawn at every look; more take their time in the browser


class Monitor(widgets.VBox):
    """Charts, numbers and controls of a run, live or ended.

    It only reads the run's folder and sends requests, so any number of views may be open in any kernel, and may be
    closed at any time. After a kernel restart `llf.Monitor(run_id)` shows the run again.

    Args:
        run: a run, its id or its folder.
        home: `LLF_HOME`. Default: from the environment.

    Raises:
        FileNotFoundError: the run does not exist.

    Example:
        >>> run = llf.train(config)
        >>> llf.Monitor(run)
    """

    def __init__(self, run: Run | RunFolder | Path | str, *, home: Path | str | None = None) -> None:
        self._run_view = RunView(folder_of(run, home))
        folder = self._run_view.watch.folder
        self._run_view.look()
        self._front = MonitorView(self._steer, run_id=folder.id, home=home_hash(folder.home))
        self._rows: Examples | None = None
        self._slots: list[Any] = []
        self._ended = threading.Event()
        self._stale: set[str] = set(PARTS)
        self._sent_at: dict[str, float] = {}
        super().__init__(children=[self._front])
        self.add_class("llf")
        self.add_class("llf-Monitor")
        self._front._view_count = 0  # noqa: SLF001 - from here on the front end counts the views
        self._push(everything=True)
        self._pump = Pump(self._tick, self._say_trouble, f"llf-monitor-{self.run_id}")
        self._front.observe(self._options_changed, ["options", "served"])
        if self.state in FINAL:
            self._ended.set()
        else:
            self._pump.start()

    @property
    def run_id(self) -> str:
        """Id of the displayed run."""
        return self._run_view.watch.folder.id

    @property
    def state(self) -> str:
        """The run's effective state."""
        return self._run_view.watch.facts.state

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the run has ended and the notebook holds its summary. An interrupt only ends the waiting.

        Args:
            timeout: maximum seconds to wait. Default: no limit.

        Returns:
            The run's state.
        """
        try:
            self._ended.wait(timeout)
        except KeyboardInterrupt:
            stop = f"llf.attach({self.run_id!r}).stop()"
            print(f"{self.run_id} is still running. Stop it with the button above, or with {stop}")  # noqa: T201
        return self.state

    def refresh(self) -> None:
        """Read the run again, also after its end: another view may have resumed it."""
        self._pump.start()

    def rows(self, step: int | None = None) -> Examples:
        """Show training examples below the charts: of a step, else those with unusual losses."""
        if self._rows is None:
            self._rows = Examples(self._run_view.watch.folder)
            self.children = [self._front, self._rows]
        if step is not None:
            self._rows.show_step(step)
        return self._rows

    def close(self) -> None:
        """Close the view; the run is not affected."""
        self._pump.stop()
        close_parts(self)
        super().close()

    # -- following ---------------------------------------------------------------------------------------
    def _tick(self) -> float | None:
        before = self.state
        changed = self._run_view.look()
        self._stale |= changed
        self._push()
        watch = self._run_view.watch
        if self.state in FINAL:
            if changed or not self._ended.is_set():
                time.sleep(SETTLE)  # the last event may be written after the final state
                self._stale |= self._run_view.look()
                self._push(everything=True)
                self._keep()
                self._ended.set()
            return None
        if watch.facts.live:
            self._ended.clear()
            self._keep_live()
            count = self._front._view_count  # noqa: SLF001 - ipywidgets' own count of views
            self._viewed = self._viewed or bool(count)
            return SLOWEST if self._front.served or (self._viewed and count == 0) else FASTEST
        if self.state != before or not self._ended.is_set():
            self._keep()
            self._ended.set()
        return SLOWEST

    def _push(self, *, everything: bool = False) -> None:
        """Send changed parts; large ones less often, and only few to a page that uses the server."""
        view, now = self._front, self._run_view.watch.now
        if not 0 <= now - view.beat < BEAT:  # below 0: the clock was set back
            view.beat = now
        for name in sorted(self._stale):
            rested = not 0 <= now - self._sent_at.get(name, 0.0) < self._rest(name)
            if everything or (rested and (name == "head" or not view.served)):
                setattr(view, name, self._part(name))
                self._sent_at[name] = now
                self._stale.discard(name)

    def _part(self, name: str) -> Any:
        return self._run_view.part(name, Options.of(self._front.options))

    def _rest(self, name: str) -> float:
        """Minimum seconds between two updates of a part."""
        if name == "charts":
            return FASTEST * max(1.0, self._front.charts.get("points", 0) / FEW_POINTS)
        return SAMPLES_REST if name == "samples" else 0.0

    _viewed = False  # the front end's first count waits in the kernel while a cell runs

    def _options_changed(self, change: Any) -> None:
        """Handle changed display options or a lost server: the thread updates at once."""
        if change["name"] == "options":
            self._stale |= {"charts", "answers"}
            self._sent_at.pop("charts", None)
        self._pump.start()

    def _say_trouble(self, text: str) -> None:
        self._front.trouble = text

    # -- steering ----------------------------------------------------------------------------------------
    def _steer(self, what: str, args: dict[str, Any]) -> str:
        """Handle a request from the kernel's front end."""
        if what in {"look", "server", "rows"}:
            return self._serve(what, args)
        from llf_core.launch import Run

        run = Run(self._run_view.watch.folder)
        if what in {"checkpoint", "evaluate", "sample", "set"}:
            run.ask(what, check_changes(args) if what == "set" else {}, by="monitor")
            return f"{REQUESTED[what]} requested through the kernel"
        if what == "stop":
            requested = run.stop(by="monitor")
            return "Stop requested through the kernel" if requested else "The run has already ended"
        if what == "kill":
            return f"The run is {run.kill(by='monitor').state}"
        if what == "code":
            return json.dumps(code_as_json(code_to_allow(run.folder)))
        if what == "resume":
            trust = args.get("trust")
            run.resume(trust=trust if isinstance(trust, str) else False)
            self.refresh()
            return "The run was resumed"
        raise ValueError(f"{what!r} is not a known request. Expected one of {', '.join(REQUEST_TYPES)}, or resume.")

    def _serve(self, what: str, args: dict[str, Any]) -> str:
        """Handle requests that concern this view only."""
        if what == "look":
            self.refresh()
        elif what == "rows":
            step = args.get("step")
            self.rows(step if isinstance(step, int) else None)
            return "The rows are shown below the charts"
        elif self._run_view.watch.folder.home == home():
            self._front.elsewhere = " ".join(compare(args))
        return ""

    # -- the saved notebook ------------------------------------------------------------------------------
    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget, and fallbacks for hosts without widgets."""
        shown = super()._repr_mimebundle_(**kwargs) or {}
        return {**shown, **first_bundle(self._run_view.watch)}

    def _ipython_display_(self, **kwargs: Any) -> None:
        """Display the view in an output whose text follows the run, for the saved notebook."""
        from IPython.display import display

        shown = self._repr_mimebundle_(**kwargs)
        if not self._run_view.watch.facts.live:
            shown |= bundle(self._run_view.watch)
        self._slots.append((display(shown, raw=True, display_id=True), shown))

    def _keep_live(self) -> None:
        """Store the summary of a live run at growing intervals, unless the page does so from its server."""
        now = time.monotonic()
        if self._slots and not self._front.served and self._run_view.watch.series and now >= self._keep_at:
            # A picture takes a second of work, for which the curves must not wait.
            threading.Thread(target=self._keep, name=f"llf-picture-{self.run_id}", daemon=True).start()
            self._keep_at, self._keep_rest = now + self._keep_rest, 2 * self._keep_rest

    _keep_at, _keep_rest = 0.0, KEEP_FIRST

    def _keep(self) -> None:
        """Update the run's summary in every output of this view."""
        if self._slots:
            whole = bundle(self._run_view.watch)
            for slot, shown in self._slots:
                slot.update(shown | whole, raw=True)


REQUESTED = {"checkpoint": "Checkpoint", "evaluate": "Evaluation", "sample": "Sample", "set": "Change"}
