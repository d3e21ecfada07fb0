"""The JSON Schema of a config, for editors and other tools."""

from __future__ import annotations

from typing import Any

from llf_core.config.field_specs import FieldSpec, fields

TYPES = {"bool": "boolean", "int": "integer", "float": "number", "text": "string", "object": "object"}


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a flat config file, with which editors complete and check keys.

    Raises:
        PluginError: the options cannot be listed, see `fields`.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "LLF run",
        "type": "object",
        "properties": {spec.key: _property(spec) for spec in fields()},
        "additionalProperties": False,
    }


def _property(spec: FieldSpec) -> dict[str, Any]:
    described: dict[str, Any] = {"title": spec.label, "description": spec.help, "default": spec.default}
    nullable = ["null"] if spec.optional else []
    if spec.type == "names":
        described["type"] = ["string", "array", *nullable]
        described["items"] = {"type": "string"} if spec.choices is None else {"enum": list(spec.choices)}
    elif spec.choices is not None:
        described["enum"] = [*spec.choices, *([None] if spec.optional else [])]
    else:
        described["type"] = [TYPES[spec.type], *nullable] if nullable else TYPES[spec.type]
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
