"""A section of the form: its basic fields, the others behind a button, and the facts beside its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.config import Problem
from llf_widgets.forms.field import messages, row
from llf_widgets.forms.uploads import Uploads
from llf_widgets.front_end import FrontEnd
from llf_widgets.static import text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llf_core.config import FieldSpec
    from llf_widgets.forms.messages import Message
    from llf_widgets.forms.state import FormState


class Section(FrontEnd):
    """One section.

    Args:
        title: its name on screen.
        specs: its fields, in order; `groups` gives the heading of those that come from another section.
        state: the form's values.
        offers: functions that list what a text field proposes, by key.
        on_change: called after the state has changed.
    """

    _esm = text("dom.js", "forms/messages.js", "forms/upload.js", "forms/field.js", "forms/section.js")
    _title = traitlets.Unicode().tag(sync=True)
    _facts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _rows = traitlets.List().tag(sync=True)
    _more = traitlets.Int(0).tag(sync=True)
    _open = traitlets.Bool(default_value=False).tag(sync=True)
    _explain = traitlets.Bool(default_value=False).tag(sync=True)
    _focus = traitlets.Dict().tag(sync=True)

    def __init__(  # noqa: PLR0913 - each of them is named
        self,
        title: str,
        specs: Sequence[FieldSpec],
        state: FormState,
        *,
        groups: Mapping[str, str],
        offers: Mapping[str, Callable[[], Sequence[str]]],
        on_change: Callable[[], None],
    ) -> None:
        self._specs = tuple(specs)
        self._state = state
        self._groups = groups
        self._offers = offers
        self._on_change = on_change
        super().__init__(_title=title)
        self._uploads = Uploads(self.send, self._uploaded)
        self.on_msg(self._receive)
        self.observe(lambda _: self.refresh(), names=["_open"])

    def refresh(self, facts: Sequence[str] | None = None) -> None:
        """Draws the fields as the state has them."""
        applying = [spec for spec in self._specs if self._state.applies(spec.key)]
        shown = [spec for spec in applying if self._open or self._stands_out(spec)]
        offered = {key: offer() for key, offer in self._offers.items() if any(spec.key == key for spec in shown)}
        with self.hold_sync():
            self._rows = [
                row(spec, self._state, group=self._groups.get(spec.section, "") if spec.level != "basic" else "",
                    offers=offered.get(spec.key, ()))
                for spec in shown
            ]  # fmt: skip
            self._more = len(applying) - sum(self._stands_out(spec) for spec in applying)
            if facts is not None:
                self._facts = list(facts)

    def holds(self, key: str) -> bool:
        """Whether a field is in this section."""
        return any(spec.key == key for spec in self._specs)

    def explain(self, on: bool) -> None:
        """Shows or hides the help of each field as a line."""
        self._explain = on

    def focus_field(self, key: str) -> None:
        """Shows a field and puts the focus on it."""
        if not any(shown["key"] == key for shown in self._rows):
            self._open = True
        self._focus = {"key": key, "times": self._focus.get("times", 0) + 1}

    def _stands_out(self, spec: FieldSpec) -> bool:
        """Basic fields, and those that have something to say: nobody should have to open a list to find an error."""
        return spec.level == "basic" or self._state.changed(spec.key) or bool(self._state.problems(spec.key))

    def _uploaded(self, key: str, told: Message, name: str) -> None:
        """Takes a file as the value of a field; one that was not taken leaves it."""
        if name:
            self._state.take_data(key, name)
        self._state.say(key, Problem("invalid", key, None, told.text, severity=told.level))
        self._on_change()

    def _receive(self, _widget: Any, content: dict[str, Any], buffers: Any) -> None:
        if content["type"] == "upload":
            self._uploads.take(content, buffers)
            return
        if content["type"] == "edit":
            self._state.edit(content["key"], content["text"])
        elif content["type"] == "fix":
            said = messages(content["key"], self._state)
            if content["message"] < len(said):
                self._state.apply(said[content["message"]].fixes[content["fix"]][1])
        self._on_change()
