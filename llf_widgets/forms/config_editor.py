"""The form's configuration as text, edited in the form, and its presets."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import traitlets

from llf_widgets.forms.messages import Message, messages_json
from llf_widgets.forms.section import FormWidget
from llf_widgets.view_files import stylesheet, text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_widgets.forms.kept_settings import KeptSettings
    from llf_widgets.forms.state import FormState


class ConfigEditor(FormWidget):
    """YAML and Python of the form's values. Pasted YAML, also LLaMA-Factory's, fills in the form."""

    _component = traitlets.Unicode("config_editor").tag(sync=True)
    _view = traitlets.Enum(["yaml", "python"], "yaml").tag(sync=True)
    _defaults = traitlets.Bool(default_value=False).tag(sync=True)
    _yaml = traitlets.Unicode().tag(sync=True)
    _python = traitlets.Unicode().tag(sync=True)
    _file = traitlets.Unicode("config").tag(sync=True)
    _invalid_text = traitlets.Unicode("").tag(sync=True)
    _messages: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)

    def __init__(self, state: FormState, on_change: Callable[[], None]) -> None:
        self._state = state
        self._on_change = on_change
        self._shown_messages: Sequence[Message] = ()
        super().__init__()
        self.on_msg(self._receive)
        self.observe(lambda _: self.refresh(), names=["_defaults"])

    @property
    def is_invalid(self) -> bool:
        """Whether the pasted text is invalid, which disables Start."""
        return bool(self._invalid_text)

    def discard_invalid_text(self) -> None:
        """Discard an invalid text after the form was edited."""
        self._invalid_text = ""

    def refresh(self) -> None:
        """Update the text from the state, with problems of unknown keys."""
        if not self._invalid_text:
            self._shown_messages = [
                Message.from_problem(problem, with_line=True) for problem in self._state.problems("")
            ]
        with self.hold_sync():
            self._yaml = self._state.yaml(defaults=self._defaults)
            self._python = self._state.python()
            self._messages = messages_json(self._shown_messages)

    def paste(self, text: str) -> None:
        """Replace the values with a YAML text. An invalid text stays with the reason, so that it can be corrected."""
        try:
            self._state.load_text(text, defaults=self._defaults)
            self._invalid_text = ""
        except ValueError as error:
            self._invalid_text = text
            self._shown_messages = [Message("error", str(error), (("Discard the text", {}),))]
        self._on_change()

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if content["type"] == "paste":
            self.paste(content["text"])
        elif content["type"] == "fix" and content["message"] < len(self._shown_messages):
            changes = self._shown_messages[content["message"]].fixes[content["fix"]][1]
            self._invalid_text = ""
            self._state.apply(changes)
            self._on_change()


_NOTE = "LLF Studio. Run this cell again to open the form."


def config_text(yaml: str, run_ids: Sequence[str]) -> str:
    """Plain text with a hint how to open the form again, the ids of its started runs and its configuration."""
    started = f"\nStarted {', '.join(run_ids)}." if run_ids else ""
    return f"{_NOTE}{started}\n\n{yaml}"


def config_html(yaml: str, run_ids: Sequence[str]) -> str:
    """The same as `config_text` as HTML, with all values escaped."""
    codes = ", ".join(f"<code>{html.escape(run_id)}</code>" for run_id in run_ids)
    started = f" Started {codes}." if codes else ""
    return f"<p>{html.escape(_NOTE)}{started}</p>\n<pre><code>{html.escape(yaml)}</code></pre>"


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
