"""Conversion of field values to text and back. Invalid text stays text; validation reports it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Literal

from llf_core.config.field_specs import plain
from llf_core.config.number_format import exact
from llf_core.config.option import split_names
from llf_core.untrusted import NotPlainError, json_value
from llf_core.untrusted.plain_yaml import yaml_value

if TYPE_CHECKING:
    from llf_core.config import FieldSpec

ControlKind = Literal["number", "text", "choice", "check"]

_BOOLS = {"true": True, "false": False}


def control_kind(spec: FieldSpec) -> ControlKind:
    """The control for a field. A comma-separated list of choices is a text field with suggestions."""
    if spec.type == "bool" and not spec.choices:
        return "choice" if spec.optional else "check"
    if spec.choices and spec.type != "names":
        return "choice"
    return "number" if spec.type in ("int", "float") else "text"


def choice_options(spec: FieldSpec, unset: str = "none") -> list[tuple[str, str]]:
    """Options of a list, as the page shows them: value as text, and label."""
    if spec.choices:
        labels = spec.choice_labels or tuple(str(choice) for choice in spec.choices)
        unit = f" {spec.unit}" if spec.unit else ""
        pairs = zip(spec.choices, labels, strict=True)
        offered = [(format_value(value), f"{label}{unit}") for value, label in pairs if value is not None]
    else:
        offered = [("true", "yes"), ("false", "no")]
    return [("", unset), *offered] if spec.optional else offered


def format_value(value: object) -> str:
    """Format a value for the form as a user would type it, such that `parse_value` returns an equivalent one.

    A list of texts becomes a comma-separated text, or a JSON list where that reads differently; None and an empty list
    become no text, and the keys of mappings texts.
    """
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return exact(value)
        case list() | tuple() if all(isinstance(one, str) for one in value):
            text = ",".join(value)
            return text if split_names(text) == tuple(value) else json.dumps(list(value), ensure_ascii=False)
        case list() | tuple() | dict():
            return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def parse_value(spec: FieldSpec, text: str) -> Any:
    """Parse typed text for a field: `2e-4`, `0.1`, `true`, `{a: 1}`. Empty is None; invalid text stays text."""
    if spec.type != "text" or spec.path or spec.choices:
        text = text.strip()
    if text.strip() == "":
        return None
    for choice in spec.choices or ():
        if choice is not None and format_value(choice) == text:
            return choice
    if spec.type == "bool":
        return _BOOLS.get(text.lower(), text)
    if spec.type in ("int", "float"):
        number = _number(text)
        return text if number is None else number
    if spec.type == "object" and text[0] in "[{":
        return _structure(text)
    return _names(text) if spec.type == "names" else text


def _names(text: str) -> object:
    """The list of a text that `format_value` made of one; any other text is a comma-separated list itself."""
    found = _structure(text) if text.startswith("[") else text
    texts = isinstance(found, list) and all(isinstance(one, str) for one in found)
    return found if texts and format_value(found) == text else text


def _number(text: str) -> int | float | None:
    if "_" in text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _structure(text: str) -> object:
    try:
        return json_value(text)
    except NotPlainError:
        pass
    try:
        return yaml_value(text)
    except NotPlainError:
        return text


def plain_value(value: object) -> Any:
    """A value as written in a file, see `llf_core.config.field_specs.plain`; lists are possible too."""
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return plain(tuple(value))
    return value


def same_value(value: object, other: object) -> bool:
    """Compare two values of a field: 1 differs from true, 2 equals 2.0, and names in a text equal those in a list."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(plain_value(value) == plain_value(other))
