"""The form's configuration as text: edited in the form, and in saved notebooks without a kernel."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import traitlets

from llf_widgets.forms.form_widget import FormWidget
from llf_widgets.forms.messages import Message, messages_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
