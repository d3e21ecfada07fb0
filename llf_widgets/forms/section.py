"""A section of the form: basic fields, advanced fields behind a button, and facts beside its title."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.config import Problem
from llf_widgets.forms.field import messages, row
from llf_widgets.forms.pane import FormPane
from llf_widgets.forms.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llf_core.config import FieldSpec
    from llf_widgets.forms.messages import Message
    from llf_widgets.forms.state import FormState


class Section(FormPane):
    """One section.

    Args:
        title: displayed title.
        specs: its fields, in order.
        state: the form's values.
        groups: headings of fields from another config section.
        offers: functions that return suggestions for a text field, by key.
        on_change: called after the state has changed.
    """

    _pane = traitlets.Unicode("section").tag(sync=True)
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
        """Update the fields from the state."""
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
        """Show or hide the help text of each field."""
        self._explain = on

    def focus_field(self, key: str) -> None:
        """Show a field and focus it."""
        if not any(shown["key"] == key for shown in self._rows):
            self._open = True
        self._focus = {"key": key, "times": self._focus.get("times", 0) + 1}

    def _stands_out(self, spec: FieldSpec) -> bool:
        """Whether a field is always visible: basic fields, and those with messages, so that errors are never hidden."""
        return spec.level == "basic" or self._state.changed(spec.key) or bool(self._state.problems(spec.key))

    def _uploaded(self, key: str, told: Message, name: str) -> None:
        """Set a field to an uploaded file; unchanged if the upload failed."""
        if name:
            self._state.take_data(key, name)
        self._state.say(key, Problem("invalid", key, None, told.text, severity=told.level))
        self._on_change()

    def _receive(self, _widget: object, content: dict[str, Any], buffers: Sequence[Any]) -> None:
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
