"""One field of the form as JSON for the front end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.choice_reasons import STRATEGY_KEY
from llf_core.launch.launchers import LAUNCHERS
from llf_widgets.forms.messages import Message, messages_json
from llf_widgets.forms.places import explained, reasons_against, remark
from llf_widgets.forms.values import choice_options, control_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.config import FieldSpec
    from llf_widgets.forms.state import FormState


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
        "messages": messages_json(field_messages(spec.key, state)),
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


def field_messages(key: str, state: FormState) -> list[Message]:
    """Messages beside a field, in the order of `FormState.problems`, to which the front end's indices refer."""
    return [Message.from_problem(problem) for problem in state.problems(key)]


def _tooltip(spec: FieldSpec) -> str:
    bounded = any(limit is not None for limit in (spec.minimum, spec.maximum, spec.above, spec.below))
    expected = f" Expected {spec.expected}." if bounded and not spec.choices else ""
    return f"{spec.key}: {spec.help.replace('`', '')}{expected}"
