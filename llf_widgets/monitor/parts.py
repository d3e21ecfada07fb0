"""The small front ends beside the charts: the head with the steering row, answers, and events with the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from llf_widgets.static import text

if TYPE_CHECKING:
    from collections.abc import Callable

STYLE = ("llf.css", "monitor.css")


class Head(anywidget.AnyWidget):
    """State, progress, key numbers, messages and steering of a run. All of it survives a page reload."""

    _esm = text("dom.js", "server.js", "plots.js", "monitor.js")
    _css = text(*STYLE)
    view = traitlets.Dict(help="What `says.front_end` makes").tag(sync=True)
    beat = traitlets.Float(0.0, help="The kernel's clock, every 2 s: the front end's proof of life").tag(sync=True)
    elsewhere = traitlets.Unicode("", help="How kernel and server differ, if they do").tag(sync=True)
    trouble = traitlets.Unicode("", help="Why the view itself fails, if it does").tag(sync=True)

    def __init__(self, steer: Callable[[str, dict[str, Any]], str]) -> None:
        """Binds the head to what it steers.

        Args:
            steer: takes a request's type (or `resume`, `look`, `server`) and its arguments, acts, and returns what to
                say. An error's text is shown. It may be called on any thread.
        """
        super().__init__()
        self._steer = steer
        self.on_msg(self._on_request)

    def _on_request(self, _widget: Any, request: Any, _buffers: Any) -> None:
        if not isinstance(request, dict) or not isinstance(request.get("type"), str):
            return
        try:
            args = request.get("args")
            ok, said = True, self._steer(request["type"], args if isinstance(args, dict) else {})
        except Exception as error:  # noqa: BLE001 - it is shown where the reader clicked
            ok, said = False, f"{error}" or type(error).__name__
        if request.get("key") is not None:
            self.send({"key": request["key"], "ok": ok, "text": said})


class More(anywidget.AnyWidget):
    """A button below the charts that shows those that are looked at only where something is odd."""

    _esm = text("dom.js", "more.js")
    left_out = traitlets.List(help="Titles of the charts that are not drawn").tag(sync=True)
    shows_all = traitlets.Bool(default_value=False, help="Whether all charts are asked for").tag(sync=True)


class Answers(anywidget.AnyWidget):
    """Watched prompts on a timeline: the base's answer beside that of the model in training."""

    _esm = text("dom.js", "server.js", "steps.js", "answers.js")
    run_id = traitlets.Unicode("", help="The run").tag(sync=True)
    answers = traitlets.List(help="What `Timeline.view` makes").tag(sync=True)
    live = traitlets.Bool(default_value=False, help="Whether a prompt may be added").tag(sync=True)

    def __init__(self, run_id: str, steer: Callable[[str, dict[str, Any]], str]) -> None:
        """Binds it to what takes a new prompt, see `Head`."""
        super().__init__(run_id=run_id)
        self._steer = steer
        self.on_msg(self._on_request)

    def _on_request(self, _widget: Any, request: Any, _buffers: Any) -> None:
        if not isinstance(request, dict) or not isinstance(request.get("watch"), str):
            return
        try:
            ok, said = True, self._steer("set", {"watch": request["watch"]})
        except Exception as error:  # noqa: BLE001 - it is shown where the reader clicked
            ok, said = False, f"{error}" or type(error).__name__
        self.send({"key": request.get("key"), "ok": ok, "text": said})


class Samples(anywidget.AnyWidget):
    """Answers that were sampled to learn from, step by step, with what each earned."""

    _esm = text("dom.js", "steps.js", "samples.js")
    samples = traitlets.Dict(help="What `Completions.view` makes").tag(sync=True)


class Journal(anywidget.AnyWidget):
    """What happened, and the last lines of the log."""

    _esm = text("dom.js", "journal.js")
    rows = traitlets.List(help="What `journal.rows` makes, newest first").tag(sync=True)
    log = traitlets.List(help="The last lines of log.txt").tag(sync=True)
    log_path = traitlets.Unicode("", help="Where the whole log is").tag(sync=True)
