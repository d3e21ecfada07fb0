"""Run configuration: sections, plug-ins, validation rules and YAML. Imports no torch."""

from llf_core.config.field_specs import FieldSpec, fields
from llf_core.config.presets import Preset, preset, presets
from llf_core.config.rule import ConfigError, Fix, Problem, Rule
from llf_core.config.run_config import Report, RunConfig, validate
from llf_core.config.schema import schema

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
