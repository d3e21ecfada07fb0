"""Run configuration: sections, plug-ins, validation rules and YAML. Imports no torch."""

from llf_core.config.field_specs import FieldSpec, fields, schema
from llf_core.config.read_config import Preset, preset, presets
from llf_core.config.rule import ConfigError, Fix, Problem, Rule
from llf_core.config.run_config import Report, RunConfig, validate

__all__ = [
    "ConfigError",
    "FieldSpec",
    "Fix",
    "Preset",
    "Problem",
    "Report",
    "Rule",
    "RunConfig",
    "fields",
    "preset",
    "presets",
    "schema",
    "validate",
]
