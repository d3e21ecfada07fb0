from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.config.adapter_servers import servers_of_config
from llf_core.config.trained_keys import trained_keys
from llf_core.runs import home
from llf_core.runs.formatting import strip_bidi_nested
from llf_core.runs.parameter_grid import parameter_grid
from llf_widgets.forms.json_command import JsonCommand
from llf_widgets.forms.messages import Message, messages_json
from llf_widgets.forms.section import FormWidget

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config import RunConfig
    from llf_widgets.forms.json_command import CommandResult

MAX_CACHED = 16
"""Number of tables that are kept."""


class TrainedParameters(FormWidget):
    """A button that shows the table of layers and modules, and a line with the servers that load the result.

    A child process makes the table, since it needs the model's architecture.
    """

    _component = traitlets.Unicode("trained_parameters").tag(sync=True)
    _state = traitlets.Enum(["idle", "running", "done"], "idle").tag(sync=True)
    _note = traitlets.Unicode("").tag(sync=True)
    _messages: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)
    _grid = traitlets.Dict(help="What `parameter_grid` makes").tag(sync=True)
    _servers = traitlets.Dict(help="What `Servers.json` makes").tag(sync=True)

    def __init__(self) -> None:
        self._config: RunConfig | None = None
        self._key = ""
        self._shown = False
        self._tables: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._process: JsonCommand | None = None
        self._request: object = None  # of the process whose result is awaited
        super().__init__()
        self.on_msg(self._receive)

    def refresh(self, config: RunConfig | None) -> None:
        """Update the servers, and show the table if it is known for the config; hide an old one."""
        servers = None if config is None else servers_of_config(config, home())
        self._config = config
        self._servers = {} if servers is None else servers.json()
        key = "" if config is None else _deciding_values(config)
        if key == self._key:
            return
        self._key, self._request = key, None
        self.cancel()
        if self._shown and key in self._tables:
            self._show("done", grid=self._tables[key])
        elif self._state != "idle" or self._messages:
            self._show("idle", note="The settings have changed." if self._shown else "")

    def start(self) -> None:
        """Show the table of layers and modules; unless it is known, a child process makes it."""
        if self._state == "running":
            return
        self._shown = True
        if self._config is None:
            self._show("idle", messages=[Message("error", "Fix the errors of the model and the method first.")])
        elif self._key in self._tables:
            self._show("done", grid=self._tables[self._key])
        else:
            key, request = self._key, object()
            self._request = request
            self._show("running", note="Starting…")
            self._process = JsonCommand(
                "parameters",
                self._config.yaml(),
                on_note=lambda text: self._tell(request, text),
                on_end=lambda result: self._finish(request, key, result),
                waiting="Reading the model's architecture…",
            )
            self._process.start()

    def cancel(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.cancel()

    def wait(self) -> None:
        """Wait until the process has ended and its result is shown, for tests and scripts."""
        if self._process is not None:
            self._process.wait()

    def close(self) -> None:
        """End the process, and close the widget."""
        self.cancel()
        super().close()

    def _tell(self, request: object, text: str) -> None:
        if request is self._request:
            self._note = text

    def _finish(self, request: object, key: str, result: CommandResult) -> None:
        report = result.report or {}
        grid = parameter_grid(report.get("rows"), report.get("parameters"), report.get("trained"))
        if grid is not None:
            self._tables[key] = strip_bidi_nested(grid)
            while len(self._tables) > MAX_CACHED:
                self._tables.popitem(last=False)
        if request is not self._request:
            return
        self._request = None
        if result.cancelled:
            self._show("idle", note="Cancelled.")
        elif grid is None:
            error = result.error or "The process has returned no table. Try again."
            self._show("idle", messages=[Message("error", error)])
        else:
            self._show("done", grid=self._tables[key])

    def _show(
        self,
        state: str,
        *,
        note: str = "",
        messages: list[Message] | None = None,
        grid: Mapping[str, object] | None = None,
    ) -> None:
        with self.hold_sync():
            self._state, self._note = state, note
            self._messages = messages_json(messages or ())
            self._grid = dict(grid or {})

    def _hide(self) -> None:
        self._shown = False
        self._show("idle")

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        {"show": self.start, "cancel": self.cancel, "hide": self._hide}[content["type"]]()


def _deciding_values(config: RunConfig) -> str:
    return repr([(key, config.get(key)) for key in trained_keys()])
