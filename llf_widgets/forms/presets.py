from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from llf_widgets.forms.form_widget import FormWidget
from llf_widgets.view_files import stylesheet, text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_widgets.forms.kept_settings import KeptSettings
    from llf_widgets.forms.state import FormState

_RECENT_RUNS = 30


class PresetSelector(FormWidget):
    """Presets, earlier runs, kept settings, and the switch "Explain each field". It also loads the form's stylesheet.

    Args:
        on_error: called with the reason why an earlier run cannot be a starting point.
    """

    _component = traitlets.Unicode("presets").tag(sync=True)
    _css = text(stylesheet("forms"))
    _presets: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    _current = traitlets.Unicode().tag(sync=True)
    _label = traitlets.Unicode().tag(sync=True)
    _changes = traitlets.Int(0).tag(sync=True)
    _show_help = traitlets.Bool(default_value=False).tag(sync=True)
    _kept: traitlets.Dict[str, object] = traitlets.Dict().tag(sync=True)
    _runs: traitlets.List[list[str]] = traitlets.List(allow_none=True, default_value=None).tag(sync=True)

    def __init__(
        self,
        presets: Sequence[tuple[str, str, str]],
        state: FormState,
        kept: KeptSettings,
        on_change: Callable[[], None],
        on_error: Callable[[str], None],
    ) -> None:
        self._state, self._settings = state, kept
        self._on_change, self._on_error = on_change, on_error
        super().__init__(_presets=[list(preset) for preset in presets])
        self.on_msg(self._receive)

    def refresh(self) -> None:
        """Update the rows from the state, and keep settings that have changed."""
        with self.hold_sync():
            compared = self._state.preset_name
            self._current = compared if self._state.from_preset else ""
            self._label = next((label for name, label, _ in self._presets if name == compared), compared)
            self._changes = len(self._state.changed_keys())
            self._kept = self._settings.refresh()

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        kind = content["type"]
        if kind == "runs":
            try:
                self._runs = _recent_runs()
            except OSError as error:  # the folder of runs is not accessible
                self._on_error(str(error))
            return
        if kind == "preset":
            self._state.select_preset(content["name"])
        elif kind == "reset":
            self._state.reset()
        elif kind == "restore":
            self._settings.restore()
        elif kind == "discard":
            self._settings.discard()
        elif kind == "undo":
            self._settings.undo()
        elif kind == "run":
            try:
                _load_run(self._state, content["id"])
            except (OSError, ValueError) as error:  # it was deleted meanwhile, or its config is no mapping
                self._on_error(f"The run {content['id']} cannot be a starting point. {error}")
                return
        self._on_change()


def _recent_runs() -> list[list[str]]:
    from llf_core.runs import home, list_runs

    rows = list_runs(home(), 0, _RECENT_RUNS).rows
    return [[row.id, f"{row.name} ({row.id})"] for row in rows if row.state != "broken"]


def _load_run(state: FormState, run_id: str) -> None:
    from llf_core.runs import open_run
    from llf_core.untrusted import read_text

    run = open_run(run_id)
    state.load_text(read_text(run.config), folder=run.path)  # where rows from a cell are
    state.from_preset = False
