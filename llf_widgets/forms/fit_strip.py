"""The forecast of a run in the form: memory by part, disk and time, and changes that make it fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.user_error import UserError
from llf_widgets.forms.form_widget import FormWidget
from llf_widgets.forms.measurement import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.config import RunConfig
    from llf_core.estimate import FitCheck

INVALID = "Fix the errors in the form to see the forecast."


class FitStrip(FormWidget):
    """The forecast of the form's config, which is updated with each key press.

    Args:
        on_apply: called with the changes of a button, and to undo them.
        current: returns the values of the form by key, to undo a change.
    """

    _component = traitlets.Unicode("fit_strip").tag(sync=True)
    _fit = traitlets.Dict().tag(sync=True)
    _message = traitlets.Unicode("").tag(sync=True)
    _undo = traitlets.Unicode("").tag(sync=True)
    _ready = traitlets.Bool(default_value=False).tag(sync=True)
    _measuring = traitlets.Bool(default_value=False).tag(sync=True)
    _note = traitlets.Unicode("").tag(sync=True)

    def __init__(self, on_apply: Callable[[Mapping[str, Any]], None], current: Callable[[], Mapping[str, Any]]) -> None:
        self._on_apply = on_apply
        self._current = current
        self._config: RunConfig | None = None
        self._found: FitCheck | None = None
        self._before: dict[str, Any] = {}
        self._measurement = Measurement(self._tell, self._measured)
        super().__init__()
        self.on_msg(self._receive)

    def show(self, config: RunConfig | None, *, has_model: bool = True) -> None:
        """Show the forecast of a config; a sentence for None (a config with errors) or a file that cannot be read."""
        self._config = config if has_model else None
        self._found, message = _forecast(config)
        if not has_model:
            self._found, message = None, message or INVALID
        with self.hold_sync():
            self._message = message
            self._fit = {} if self._found is None else self._found.json()
            self._ready = self._found is not None

    def refresh(self) -> None:
        """Make the forecast of the same config again, with what was measured on this machine since."""
        self.show(self._config)

    def apply(self, index: int) -> None:
        """Apply the change of this index that makes the run fit, and offer to undo it; unknown ones are ignored."""
        if self._found is None or index >= len(self._found.changes):
            return  # clicked while the form was changing
        change = self._found.changes[index]
        values = self._current()
        self._before = {key: values.get(key) for key in change.changes}
        self._undo = f"Undo “{change.label}”"
        self._on_apply(change.changes)

    def undo(self) -> None:
        """Restore the values that the last applied change replaced; other edits since then stay."""
        before, self._before = self._before, {}
        self._undo = ""
        if before:
            self._on_apply(before)

    def measure(self) -> None:
        """Make a few steps of the shown config in a child process, and correct the forecast by them."""
        if self._config is None or self._measurement.running:
            return
        config = self._config.yaml()
        self._measuring = True
        self._measurement.start(config)

    def cancel(self) -> None:
        """End the measurement, since the run needs the device."""
        self._measurement.cancel()

    def wait(self) -> None:
        """Wait until the measurement has ended, for tests and scripts."""
        self._measurement.wait()

    def close(self) -> None:
        """End the measurement, and close the widget."""
        self._measurement.cancel()
        super().close()

    def _tell(self, note: str) -> None:
        self._note = note

    def _measured(self, note: str) -> None:
        self.refresh()
        with self.hold_sync():
            self._measuring = False
            self._note = note

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        handlers: dict[str, Callable[[], None]] = {
            "undo": self.undo,
            "measure": self.measure,
            "cancel": self.cancel,
            "apply": lambda: self.apply(content["index"]),
        }
        handlers[content["type"]]()


def _forecast(config: RunConfig | None) -> tuple[FitCheck | None, str]:
    """The forecast of a config, or the sentence that is shown without one."""
    from llf_core.data.text_lengths import estimate

    if config is None:
        return None, INVALID
    try:
        return estimate(config), ""
    except UserError as error:
        return None, f"{error.message} {error.what_to_do}".strip()
    except (OSError, ValueError) as error:
        return None, f"No forecast: {error}"
