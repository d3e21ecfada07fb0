from __future__ import annotations

from typing import Any

from llf_core.config.field_specs import FieldSpec, fields
from llf_core.config.option import Lines

TYPES = {
    "bool": ["boolean"],
    "int": ["integer"],
    "float": ["number"],
    "text": ["string"],
    "names": ["string", "array"],
    "object": ["object", "string"],
}
"""JSON types of a value in a file: an object may be JSON text, names and prompts a list."""


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a flat config file, without other names of keys and keys that are not needed."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "LLF run",
        "type": "object",
        "properties": {spec.key: _property(spec) for spec in fields()},
        "additionalProperties": False,
    }


def _property(spec: FieldSpec) -> dict[str, object]:
    described: dict[str, object] = {"title": spec.label, "description": spec.help, "default": spec.default}
    types = [*TYPES[spec.type], *(["null"] if spec.optional else [])]
    if spec.annotation in (Lines, Lines | None):
        types.insert(1, "array")
        described["items"] = {"type": "string"}
    if spec.type == "names":
        described["items"] = {"type": ["string", "number"]} if spec.choices is None else {"enum": list(spec.choices)}
    if spec.choices is not None and spec.type != "names":
        described["enum"] = [*spec.choices, *([None] if spec.optional else [])]
    else:
        described["type"] = types if len(types) > 1 else types[0]
    bounds = {
        "minimum": spec.minimum,
        "maximum": spec.maximum,
        "exclusiveMinimum": spec.above,
        "exclusiveMaximum": spec.below,
    }
    described |= {name: bound for name, bound in bounds.items() if bound is not None}
    described |= {"x-section": spec.section, "x-level": spec.level, "x-source": spec.source}
    if spec.unit:
        described["x-unit"] = spec.unit
    if spec.plugin:
        described["x-plugin"] = spec.plugin
    return described
