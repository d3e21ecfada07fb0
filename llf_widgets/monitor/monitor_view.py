"""The front end of a monitor: its synced traits and its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from llf_widgets.front_end import FrontEnd
from llf_widgets.monitor.run_view import ViewOptions
from llf_widgets.view_files import script, stylesheet, text

if TYPE_CHECKING:
    from collections.abc import Callable


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
    trained = traitlets.Dict(help="What `llf_core.runs.description.trained_json` makes").tag(sync=True)
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
