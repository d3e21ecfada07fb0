"""The configuration as text; pasted YAML updates the form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from llf_widgets.forms.messages import Message, wire
from llf_widgets.forms.pane import FormPane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_widgets.forms.state import FormState


class TextPane(FormPane):
    """YAML and Python of the form's values.

    Args:
        state: the form's values.
        on_change: called after the state has changed.
    """

    _pane = traitlets.Unicode("text").tag(sync=True)
    _view = traitlets.Enum(["yaml", "python"], "yaml").tag(sync=True)
    _defaults = traitlets.Bool(default_value=False).tag(sync=True)
    _yaml = traitlets.Unicode().tag(sync=True)
    _python = traitlets.Unicode().tag(sync=True)
    _file = traitlets.Unicode("config").tag(sync=True)
    _refused = traitlets.Unicode("").tag(sync=True)
    _messages = traitlets.List().tag(sync=True)

    def __init__(self, state: FormState, on_change: Callable[[], None]) -> None:
        self._state = state
        self._on_change = on_change
        self._said: Sequence[Message] = ()
        super().__init__()
        self.on_msg(self._receive)
        self.observe(lambda _: self.refresh(), names=["_defaults"])

    @property
    def refused(self) -> bool:
        """Whether the pasted text is invalid, so that form and text differ."""
        return bool(self._refused)

    def accept_form(self) -> None:
        """Discard an invalid text after the form was edited."""
        self._refused = ""

    def refresh(self) -> None:
        """Update the text from the state, with problems of unknown keys."""
        if not self._refused:
            self._said = [Message.of(problem, where=True) for problem in self._state.problems("")]
        with self.hold_sync():
            self._yaml = self._state.yaml(defaults=self._defaults)
            self._python = self._state.python()
            self._messages = wire(self._said)

    def paste(self, text: str) -> None:
        """Replace the values with a YAML text; an invalid text stays in the pane with the reason."""
        try:
            self._state.paste(text, defaults=self._defaults)
            self._refused = ""
        except ValueError as error:
            self._refused = text
            self._said = [Message("error", str(error), (("Discard the text", {}),))]
        self._on_change()

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if content["type"] == "paste":
            self.paste(content["text"])
        elif content["type"] == "fix" and content["message"] < len(self._said):
            changes = self._said[content["message"]].fixes[content["fix"]][1]
            self._refused = ""
            self._state.apply(changes)
            self._on_change()
