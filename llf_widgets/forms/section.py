"""A section of the form: its fields, basic ones first and advanced ones behind a button, and facts beside its title."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.config import Problem
from llf_core.config.choice_reasons import STRATEGY_KEY
from llf_core.config.field_specs import USED_BY_OTHERS
from llf_core.launch.launchers import LAUNCHERS
from llf_widgets.forms.messages import Message, messages_json
from llf_widgets.forms.places import explained, reasons_against, remark
from llf_widgets.forms.uploads import UploadReceiver
from llf_widgets.forms.values import choice_options, control_kind
from llf_widgets.front_end import FrontEnd
from llf_widgets.view_files import script, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llf_core.config import FieldSpec
    from llf_widgets.forms.state import FormState
    from llf_widgets.forms.suggestions import Completions


class FormWidget(FrontEnd):
    """One widget of the form. All share one ES module, which renders the component that `_component` names."""

    _esm = text(script("forms"))
    _component = traitlets.Unicode(help="One of `COMPONENTS` in labextension/widgets/forms/view.js").tag(sync=True)


class FormSection(FormWidget):
    """One section of the form.

    Args:
        groups: headings of fields from another config section.
        suggestions: functions that return suggestions for a text field, by key.
        on_type: called with key and text at each key press in a text field, before it is left.
    """

    _component = traitlets.Unicode("section").tag(sync=True)
    _title = traitlets.Unicode().tag(sync=True)
    _facts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _rows: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)
    _hidden_count = traitlets.Int(0).tag(sync=True)
    _expanded = traitlets.Bool(default_value=False).tag(sync=True)
    _show_help = traitlets.Bool(default_value=False).tag(sync=True)
    _focus = traitlets.Dict().tag(sync=True)

    def __init__(  # noqa: PLR0913 - each of them is named
        self,
        title: str,
        specs: Sequence[FieldSpec],
        state: FormState,
        *,
        groups: Mapping[str, str],
        suggestions: Mapping[str, Callable[[], Sequence[str]]],
        completions: Mapping[str, Callable[[str], Completions]],
        on_change: Callable[[], None],
        on_type: Callable[[str, str], None] = lambda _key, _text: None,
    ) -> None:
        self._on_type = on_type
        self._specs = tuple(specs)
        self._state = state
        self._groups = groups
        self._suggestions = suggestions
        self._completions = completions
        self._on_change = on_change
        self._uploads = UploadReceiver(self.send, self._uploaded)
        super().__init__(_title=title)
        self.on_msg(self._receive)
        self.observe(lambda _: self.refresh(), names=["_expanded"])

    def refresh(self, facts: Sequence[str] | None = None) -> None:
        """Update the fields from the state, after an edit of any section, and the facts beside the title if given."""
        applying = [spec for spec in self._specs if self._state.is_visible(spec.key)]
        shown = [spec for spec in applying if self._expanded or self._always_visible(spec)]
        suggested = {
            key: suggest() for key, suggest in self._suggestions.items() if any(spec.key == key for spec in shown)
        }
        with self.hold_sync():
            self._rows = [
                field_json(spec, self._state, group=self._groups.get(spec.section, "") if spec.level != "basic" else "",
                    suggestions=suggested.get(spec.key, ()), completes=spec.key in self._completions)
                for spec in shown
            ]  # fmt: skip
            self._hidden_count = len(applying) - sum(self._always_visible(spec) for spec in applying)
            if facts is not None:
                self._facts = list(facts)

    def close(self) -> None:
        """Close the widget, and cancel the uploads in progress."""
        self._uploads.close()
        super().close()

    def contains(self, key: str) -> bool:
        """Whether a field is in this section."""
        return any(spec.key == key for spec in self._specs)

    def show_help(self, on: bool) -> None:
        """Show or hide the help text of each field."""
        self._show_help = on

    def focus_field(self, key: str) -> None:
        """Show a field, also one behind the button, and focus it."""
        if not any(shown["key"] == key for shown in self._rows):
            self._expanded = True
        self._focus = {"key": key, "times": self._focus.get("times", 0) + 1}

    def _always_visible(self, spec: FieldSpec) -> bool:
        """Whether a field is always visible: basic and changed fields, and fields with messages."""
        return spec.level == "basic" or self._state.is_changed(spec.key) or bool(self._state.problems(spec.key))

    def _uploaded(self, key: str, message: Message, name: str) -> None:
        if name:
            self._state.set_dataset(key, name)
        self._state.attach_problem(key, Problem("invalid", key, None, message.text, severity=message.level))
        self._on_change()

    def _receive(self, _widget: object, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        if content["type"] == "upload":
            self._uploads.receive(content, buffers)
            return
        if content["type"] == "type":
            self._on_type(content["key"], content["text"])
            return
        if content["type"] == "complete":
            self._complete(content["key"], content["text"], content["serial"])
            return
        if content["type"] == "edit":
            self._state.edit(content["key"], content["text"])
        elif content["type"] == "fix":
            messages = _field_messages(content["key"], self._state)
            if content["message"] < len(messages):
                self._state.apply(messages[content["message"]].fixes[content["fix"]][1])
        self._on_change()

    def _complete(self, key: str, text: str, serial: int) -> None:
        with suppress(OSError):
            found = self._completions[key](text)
            answer = {"options": found.options, "more": found.more}
            self.send({"type": "completions", "key": key, "serial": serial, **answer})


def field_json(
    spec: FieldSpec, state: FormState, *, group: str = "", suggestions: Sequence[str] = (), completes: bool = False
) -> dict[str, object]:
    """A field as its section displays it, `Row` of `labextension/widgets/forms/field.js`."""
    control: str = control_kind(spec)
    text, unset = state.text(spec.key), spec.meaning(state.value)
    if spec.key == "launch_target" and (place := LAUNCHERS.get(state.text("launch"))) is not None:
        unset = place.target or unset
    if control == "text" and (spec.lines or "\n" in text):
        control = "lines"
    wide = control != "number"
    return {
        "key": spec.key,
        "label": spec.label,
        "unit": "" if wide else spec.unit or "",
        "help": _help(spec, text),
        "explained": bool(explained(spec.key)),
        "tooltip": _tooltip(spec),
        "kind": control,
        "text": text,
        "placeholder": unset,
        "choices": _choices(spec, state, text, unset) if control == "choice" else [],
        "suggestions": list(suggestions or map(str, spec.choices or ())) if control == "text" else [],
        "completes": completes and control == "text",
        "group": group,
        "wide": wide,
        "long": (spec.path is not None and control == "text") or spec.key == STRATEGY_KEY,
        "upload": spec.path == "data" and control == "text",
        "changed": state.is_changed(spec.key),
        "messages": messages_json(_field_messages(spec.key, state)),
    }


def _choices(spec: FieldSpec, state: FormState, chosen: str, unset: str) -> list[tuple[str, str, str, str]]:
    plugins = explained(spec.key)
    config = state.report.config if plugins else None
    reasons = {} if config is None else reasons_against(config, spec.key)
    return [
        (
            value,
            getattr(plugins.get(value), "line", label),
            "" if value == chosen else reasons.get(value, ""),
            plugins[value].label if value in plugins else label,
        )
        for value, label in choice_options(spec, unset)
    ]


def _help(spec: FieldSpec, chosen: str) -> str:
    """The summary of the chosen value, with its paper; the field's help if it has none."""
    one = explained(spec.key).get(chosen)
    if one is None or not one.summary:
        return spec.help
    if paper := getattr(one, "paper", ""):
        return f"{one.summary} ({paper})"
    return f"{one.summary} {remark(spec.key, chosen)}".strip()


def _field_messages(key: str, state: FormState) -> list[Message]:
    """Messages beside a field, in the order of `FormState.problems`, to which the front end's indices refer."""
    return [Message.from_problem(problem) for problem in state.problems(key)]


def _tooltip(spec: FieldSpec) -> str:
    bounded = any(limit is not None for limit in (spec.minimum, spec.maximum, spec.above, spec.below))
    expected = f" Expected {spec.expected}." if bounded and not spec.choices else ""
    return f"{spec.key}: {spec.help.replace('`', '')}{expected}"


SECTIONS: dict[str, tuple[str, ...]] = {
    "Model": ("model",),
    "Data": ("data",),
    "Method": ("stage", "method"),
    "Training": ("training", "optimizer", "evaluation", "generation"),
    "Where": ("launch",),
}
"""The config sections in each section of the form."""

GROUPS = {"optimizer": "Optimizer", "evaluation": "Evaluation", "generation": "Generation"}
"""Headings among the advanced fields."""


def assign_sections(specs: Sequence[FieldSpec]) -> dict[str, list[FieldSpec]]:
    """Sort fields into sections of the form: basic ones first, folders after choices and numbers."""
    home = {section: title for title, sections in SECTIONS.items() for section in sections}
    specs = [spec for spec in specs if spec.section not in USED_BY_OTHERS]  # a form starts runs, and these concern none
    unplaced = {spec.section for spec in specs} - set(home)
    if unplaced:
        raise ValueError(f"The form layout does not contain the section {', '.join(sorted(unplaced))}.")
    found: dict[str, list[FieldSpec]] = {title: [] for title in SECTIONS}
    for spec in specs:
        found[home[spec.section]].append(spec)
    for title, sections in SECTIONS.items():
        found[title].sort(
            key=lambda spec: (
                spec.level != "basic",
                spec.level == "basic" and spec.path == "folder",
                sections.index(spec.section),
            )
        )
    return found
