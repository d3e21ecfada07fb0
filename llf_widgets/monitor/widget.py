"""`llf.Monitor(run)`: the live view of a run, its front end, and its summary in the saved notebook."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import traitlets

from llf_core.runs import FINAL, home
from llf_core.runs.control import REQUEST_TYPES, check_changes
from llf_core.runs.foreign_code import code_as_json, code_to_allow
from llf_widgets.examples import Examples
from llf_widgets.front_end import ClosedByHand, FrontEnd, close_descendants
from llf_widgets.home import home_hash, run_folder, server_mismatches
from llf_widgets.monitor.mime_bundle import mime_bundle, text_bundle
from llf_widgets.monitor.run_view import SECTIONS, RunView, ViewOptions
from llf_widgets.monitor.snapshot import MAX_INTERVAL, MIN_INTERVAL, Poller
from llf_widgets.view_files import script, stylesheet, text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llf_core.launch import Run
    from llf_core.runs import RunFolder

HEARTBEAT_SECONDS = 2.0  # seconds; the front end misses the kernel after 12
SETTLE_POLL_SECONDS = 0.1  # seconds between two looks for that event
COMPLETIONS_SECONDS = 2.0  # seconds between two times that sampled answers are sent: they are long
FIRST_SAVE_SECONDS = 30.0  # seconds between the first two times that a live run's picture goes into the notebook
SETTLE_SECONDS = 3.0  # maximum seconds to wait for the event of a final state, which is written after it
FEW_POINTS = 500  # so many points a line are redrawn at every look; more take their time in the browser


class Monitor(ClosedByHand, widgets.VBox):  # type: ignore[misc]  # ipywidgets ships no types
    """Charts, numbers and controls of a run, live or ended.

    It only reads the run's folder and sends requests, so any number of views may be open in any kernel, and may be
    closed at any time. After a kernel restart `llf.Monitor(run_id)` shows the run again. A run whose files are damaged
    or were deleted is shown as `broken`, with the reason.

    Args:
        run: a run, its id or its folder; or `ssh://host/run`, a run of another host.
        home: `LLF_HOME`; None for the environment's.

    Raises:
        FileNotFoundError: no run has this id, or there is no such folder.
        ValueError: the id is invalid.
        TypeError: it is neither a run nor an id nor a path.

    Example:
        >>> run = llf.train(config)
        >>> llf.Monitor(run)
    """

    def __init__(self, run: Run | RunFolder | Path | str, *, home: Path | str | None = None) -> None:
        self._run_view = RunView(run_folder(run, home))
        folder = self._run_view.tracker.folder
        self._run_view.refresh()
        self._view = MonitorView(self._handle_request, run_id=folder.id, home=home_hash(folder.home))
        self._examples: Examples | None = None
        self._displays: list[Any] = []
        self._ended, self._closed = threading.Event(), False
        self._end_lock = threading.Lock()
        self._stale: set[str] = set(SECTIONS)
        self._sent_at: dict[str, float] = {}
        super().__init__(children=[self._view])
        self.add_class("llf")
        self.add_class("llf-Monitor")
        self._view._view_count = 0  # noqa: SLF001 - from here on the front end counts the views
        self._push(everything=True)
        self._poller = Poller(self._poll, self._show_error, f"llf-monitor-{self.run_id}")
        self._view.observe(self._options_changed, ["options", "uses_server"])
        if self.state in FINAL:
            self._ended.set()
        else:
            self._poller.start()

    @property
    def run_id(self) -> str:
        """Id of the displayed run."""
        return self._run_view.tracker.folder.id

    @property
    def state(self) -> str:
        """The run's state as of the last read; `lost` if its process is gone, `broken` if its status cannot be read."""
        return self._run_view.tracker.snapshot.state

    def wait(self, timeout: float | None = None) -> str:
        """Wait at most `timeout` seconds until the run has ended and the notebook holds its summary; returns its state.

        An interrupt only ends the waiting, not the run, and so does closing the view.
        """
        try:
            self._ended.wait(timeout)
        except KeyboardInterrupt:
            stop = f"llf.attach({self.run_id!r}).stop()"
            print(f"{self.run_id} is still running. Stop it with the button above, or with {stop}")  # noqa: T201
        return self.state

    def refresh(self) -> None:
        """Read the run again in the background, also after its end: another view may have resumed it."""
        if not self._closed:
            self._poller.start()

    def examples(self, step: int | None = None) -> Examples:
        """Show training examples below the charts: of a step, or those with unusual losses.

        Args:
            step: the step, for example one with a loss spike; None to keep what the view shows, at first the hardest
                examples.

        Raises:
            ConfigError: the run's config is no longer valid.
        """
        if self._examples is None:
            self._examples = Examples(self._run_view.tracker.folder)
            self.children = [self._view, self._examples]
        if step is not None:
            self._examples.show_step(step)
        return self._examples

    def close(self) -> None:
        """Close the view, end `wait` and free the widgets; the run is not affected."""
        self._poller.stop()
        with self._end_lock:
            self._closed = True
            self._ended.set()
        close_descendants(self)
        super().close()

    # -- following ---------------------------------------------------------------------------------------
    def _poll(self) -> float | None:
        before = self.state
        changed = self._run_view.refresh()
        self._stale |= changed
        self._push()
        tracker = self._run_view.tracker
        if self.state in FINAL:
            if changed or not self._ended.is_set():
                self._await_last_event()
                self._push(everything=True)
                self._end()
            return None
        if tracker.snapshot.live:
            with self._end_lock:
                if not self._closed:
                    self._ended.clear()
            self._save_live()
            count = self._view._view_count  # noqa: SLF001 - ipywidgets' own count of views
            self._was_viewed = self._was_viewed or bool(count)
            return MAX_INTERVAL if self._view.uses_server or (self._was_viewed and count == 0) else MIN_INTERVAL
        if self.state != before or not self._ended.is_set():
            self._end()
        return MAX_INTERVAL

    def _await_last_event(self) -> None:
        """Read on until the event of the final state is there; a run that was killed at that moment has none."""
        tracker, end = self._run_view.tracker, time.monotonic() + SETTLE_SECONDS
        while self.state in FINAL and not self._closed and time.monotonic() < end:
            last = tracker.index.last("state", tracker.snapshot.attempt)
            if last is not None and last.get("state") in FINAL:
                return
            time.sleep(SETTLE_POLL_SECONDS)
            self._stale |= self._run_view.refresh()

    def _end(self) -> None:
        """Store the summary of a run that has ended, then end `wait`, also if the picture cannot be drawn."""
        try:
            self._save_summary()
        finally:
            self._ended.set()

    def _push(self, *, everything: bool = False) -> None:
        """Send changed parts; large ones less often, and only few to a page that uses the server."""
        view, now = self._view, self._run_view.tracker.now
        if not 0 <= now - view.kernel_heartbeat < HEARTBEAT_SECONDS:  # below 0: the clock was set back
            view.kernel_heartbeat = now
        for name in sorted(self._stale):
            rested = not 0 <= now - self._sent_at.get(name, 0.0) < self._min_interval(name)
            if everything or (rested and (name == "head" or not view.uses_server)):
                setattr(view, name, self._section(name))
                self._sent_at[name] = now
                self._stale.discard(name)

    def _section(self, name: str) -> object:
        return self._run_view.section(name, ViewOptions.from_json(self._view.options))

    def _min_interval(self, name: str) -> float:
        if name == "charts":
            points: int = self._view.charts.get("points", 0)
            return MIN_INTERVAL * max(1.0, points / FEW_POINTS)
        return COMPLETIONS_SECONDS if name == "completions" else 0.0

    _was_viewed = False  # the front end's first count waits in the kernel while a cell runs

    def _options_changed(self, change: Any) -> None:
        if change["name"] == "options":
            self._stale |= {"charts", "answers"}
            self._sent_at.pop("charts", None)
        self._poller.start()

    def _show_error(self, text: str) -> None:
        self._view.error = text

    # -- steering ----------------------------------------------------------------------------------------
    def _handle_request(self, what: str, args: dict[str, object]) -> str:
        if what in {"refresh", "compare_server", "examples"}:
            return self._handle_view_request(what, args)
        from llf_core.launch import Run

        run = Run(self._run_view.tracker.folder)
        if what in {"checkpoint", "evaluate", "sample", "set"}:
            run.ask(what, check_changes(args) if what == "set" else {}, by="monitor")
            return f"{REQUEST_LABELS[what]} requested through the kernel"
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

    def _handle_view_request(self, what: str, args: dict[str, object]) -> str:
        if what == "refresh":
            self.refresh()
        elif what == "examples":
            step = args.get("step")
            self.examples(step if isinstance(step, int) else None)
            return "The rows are shown below the charts"
        elif self._run_view.tracker.folder.home == home():
            self._view.server_mismatch = " ".join(server_mismatches(args))
        return ""

    # -- the saved notebook ------------------------------------------------------------------------------
    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        shown = super()._repr_mimebundle_(**kwargs) or {}
        return {**shown, **text_bundle(self._run_view.tracker)}

    def _ipython_display_(self, **kwargs: object) -> None:
        """Display the view in an output whose text follows the run, for the saved notebook."""
        from IPython.display import display

        shown = self._repr_mimebundle_(**kwargs)
        if not self._run_view.tracker.snapshot.live:
            shown |= mime_bundle(self._run_view.tracker)
        handle = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        self._displays.append((handle, shown))

    def _save_live(self) -> None:
        """Store the summary of a live run at growing intervals, unless the page does so from its server."""
        now = time.monotonic()
        if self._displays and not self._view.uses_server and self._run_view.tracker.series and now >= self._save_at:
            # A picture takes a second of work, for which the curves must not wait.
            threading.Thread(target=self._save_summary, name=f"llf-picture-{self.run_id}", daemon=True).start()
            self._save_at, self._save_interval = now + self._save_interval, 2 * self._save_interval

    _save_at, _save_interval = 0.0, FIRST_SAVE_SECONDS

    def _save_summary(self) -> None:
        if self._displays:
            summary = mime_bundle(self._run_view.tracker)
            for slot, shown in self._displays:
                slot.update(shown | summary, raw=True)


REQUEST_LABELS = {"checkpoint": "Checkpoint", "evaluate": "Evaluation", "sample": "Sample", "set": "Change"}


class MonitorView(FrontEnd):
    """The sections of a run's monitor, as held by the kernel.

    In Jupyter the front end requests the same sections from the server, and uses the kernel's if that fails, so a busy,
    restarted or killed kernel does not stop the view.

    Args:
        on_request: handles a request (a control type, or `resume`, `refresh`, `examples`, `compare_server`, `code`)
            with its arguments, and returns a message for the user. The text of an error is shown. May be called on any
            thread.
        identity: `run_id` and `home`, see the traits.
    """

    _esm = text(script("monitor"))
    _css = text(stylesheet("monitor"))
    run_id = traitlets.Unicode("", help="The run").tag(sync=True)
    home = traitlets.Unicode("", help="`home_hash` of the run's LLF_HOME: another server's runs are others").tag(
        sync=True
    )
    head = traitlets.Dict(help="What `status_text.front_end` makes").tag(sync=True)
    charts = traitlets.Dict(help="`figure`, `points` and `left_out`").tag(sync=True)
    answers: traitlets.List[dict[str, object]] = traitlets.List(help="What `SampleAnswers.view` makes").tag(sync=True)
    completions = traitlets.Dict(help="What `Completions.view` makes").tag(sync=True)
    trained = traitlets.Dict(help="What `llf_core.runs.listing.trained_json` makes").tag(sync=True)
    events: traitlets.List[dict[str, object]] = traitlets.List(help="Rows of the event log, newest first").tag(
        sync=True
    )
    log = traitlets.Dict(help="`lines`, the last of log.txt, and `path`").tag(sync=True)
    options = traitlets.Dict(help="`run_view.ViewOptions` of the charts").tag(sync=True)
    uses_server = traitlets.Bool(default_value=False, help="Whether the page reads from the server").tag(sync=True)
    kernel_heartbeat = traitlets.Float(0.0, help="Unix seconds, every 2 s: the kernel is alive").tag(sync=True)
    server_mismatch = traitlets.Unicode("", help="How kernel and server differ, if they do").tag(sync=True)
    error = traitlets.Unicode("", help="Why the view itself fails, if it does").tag(sync=True)

    def __init__(self, on_request: Callable[[str, dict[str, Any]], str], **identity: str) -> None:
        super().__init__(**identity)
        self._handle_request = on_request
        self.on_msg(self._on_request)

    @traitlets.validate("options")
    def _checked(self, proposal: Any) -> dict[str, Any]:
        try:
            ViewOptions.from_json(proposal["value"])
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None
        return dict(proposal["value"])

    def _on_request(self, _widget: object, request: object, _buffers: object) -> None:
        if not isinstance(request, dict) or not isinstance(request.get("type"), str):
            return
        try:
            args = request.get("args")
            ok, text = True, self._handle_request(request["type"], args if isinstance(args, dict) else {})
        except Exception as error:  # noqa: BLE001 - it is shown where the reader clicked
            ok, text = False, f"{error}" or type(error).__name__
        if request.get("key") is not None:
            self.send({"key": request["key"], "ok": ok, "text": text})
