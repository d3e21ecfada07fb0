from __future__ import annotations

import difflib
import functools
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from llf_core.config.classify_key import show
from llf_core.config.field_specs import SECTIONS, field, plain
from llf_core.config.option import split_names
from llf_core.config.paths import absolute
from llf_core.config.problem import Fix, Problem
from llf_core.config.registry import all_declared, broken
from llf_core.untrusted import leads_to_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.field_specs import FieldSpec
    from llf_core.config.option import Section
    from llf_core.config.read_config import RequestedConfig
    from llf_core.config.training import Training
    from llf_core.config.values import ConfigValues

EVALUATION_INTERVAL = 500
ConfigT = TypeVar("ConfigT", bound="ConfigValues")


def build(
    values: dict[str, Any], requested: RequestedConfig, config_class: type[ConfigT]
) -> tuple[ConfigT, list[Problem]]:
    """Build a config. A rejected value is replaced by its default, so that the other values are checked too."""
    problems: list[Problem] = []

    def made(section: type[Section]) -> Section:
        keys = _keys(section)
        own = {key: value for key, value in values.items() if key in keys}
        if not own:  # defaults are not validated, so no validator is built for it
            return _with_absolute_paths(_default(section), requested)
        part, refused = _section(section, own)
        problems.extend(_refusal(key, own[key], reason, requested) for key, reason in refused.items())
        return _with_absolute_paths(part, requested)

    sections: dict[str, Any] = {name: made(section) for name, section in SECTIONS.items()}
    sections["training"] = _with_inferred(sections["training"])
    options = {name: made(one.options) for name, one in all_declared().items()}
    return config_class(**sections, plugin_options=options), problems


def _with_inferred(training: Training) -> Training:
    """Set keys explicitly that the Trainer would infer from others.

    The Trainer evaluates as often as it logs. LLF logs losses more often, so only an explicit logging interval counts.
    """
    changes: dict[str, Any] = {}
    if training.eval_strategy == "steps" and training.eval_steps is None:
        logs = "logging_steps" in training.model_fields_set
        changes["eval_steps"] = training.logging_steps if logs else EVALUATION_INTERVAL
    if training.early_stopping_steps is not None and training.metric_for_best_model is None:
        changes["metric_for_best_model"] = "loss"
    return training.model_copy(update=changes)


def _section(section: type[Section], own: dict[str, object]) -> tuple[Section, dict[str, str]]:
    refused = {key: reason for key, value in own.items() if (reason := _refused_choice(field(key), value))}
    try:
        return section(**{key: value for key, value in own.items() if key not in refused}), refused
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            own_words = detail["type"] == "value_error"
            reason = detail["msg"].removeprefix("Value error, ") if own_words else ""
            refused.setdefault(str(detail["loc"][0]), reason)
    return section(**{key: value for key, value in own.items() if key not in refused}), refused


def _refused_choice(spec: FieldSpec | None, value: object) -> str:
    """Reason why a choice is rejected that pydantic does not check: the name of a plug-in, or one of several names."""
    if spec is None or spec.choices is None or value is None:
        return ""
    if spec.type == "names":
        names = split_names(value)
        good = isinstance(names, tuple) and all(name in spec.choices for name in names)
    else:
        good = spec.type != "text" or value in spec.choices
    if good:
        return ""
    reasons = [one.reason for one in broken() if one.name == value]
    return reasons[0] if reasons else f"Expected {spec.expected}."


def _refusal(key: str, value: object, reason: str, requested: RequestedConfig) -> Problem:
    spec = field(key)
    assert spec is not None, key  # noqa: S101 - every field of a section has one
    message = f"{spec.label} (`{key}`) is {show(value)}. {reason or f'Expected {spec.expected}.'}"
    near = difflib.get_close_matches(str(value), [str(one) for one in spec.choices or ()], n=1)
    values = dict.fromkeys([*(near if spec.type == "text" else ()), spec.default])
    fixes = tuple(setting_fix(spec, one, requested.values) for one in values)
    return Problem("invalid", key, value, message, fixes, line=requested.lines.get(key))


def setting_fix(spec: FieldSpec, value: object, values: Mapping[str, object]) -> Fix:
    """A fix that sets a key; its label says what a default such as -1 means: `Set to -1 (all epochs)`."""

    def value_of(key: str) -> object:
        other = field(key)
        return values.get(key, other and other.default)

    meaning = spec.meaning(value_of) if spec.unset and value == spec.default else ""
    shown = value if isinstance(value, str) else show(value)
    return Fix(f"Set to {shown}{f' ({meaning})' if meaning else ''}", {spec.key: value})


def absolute_values(requested: RequestedConfig) -> dict[str, Any]:
    """The values of a config as requested, with absolute paths, for a text without a folder, such as a form's.

    The default `dataset_dir` is added if the config's folder has it, as a run finds it there.
    """
    values = {key: _absolute_value(key, value, requested) for key, value in requested.values.items()}
    spec = field("dataset_dir")
    if spec is not None and (found := _absolute(spec, spec.default, requested)) != spec.default:
        values.setdefault(spec.key, found)
    return values


def _absolute_value(key: str, value: object, requested: RequestedConfig) -> object:
    spec = field(key)
    if spec is None or spec.path is None:
        return value
    names = split_names(value) if spec.type == "names" else (value,)
    if not isinstance(names, tuple) or not all(isinstance(one, str) for one in names):
        return value
    made = tuple(_absolute(spec, one, requested) for one in names)
    if made == names:
        return value
    return plain(made) if spec.type == "names" else made[0]


def _with_absolute_paths(part: Section, requested: RequestedConfig) -> Section:
    changes: dict[str, object] = {}
    for spec in _path_specs(type(part)):
        value = getattr(part, spec.key)
        if isinstance(value, tuple):
            changes[spec.key] = tuple(_absolute(spec, one, requested) for one in value)
        elif value is not None:
            changes[spec.key] = _absolute(spec, value, requested)
    return part.model_copy(update=changes) if changes else part


def _absolute(spec: FieldSpec, value: str, requested: RequestedConfig) -> str:
    base = requested.base
    # The default `data` is a folder only if it contains `dataset_info.json`.
    if spec.key == "dataset_dir" and value == spec.default and not leads_to_file(base / value / "dataset_info.json"):
        return value
    return value if spec.path is None else absolute(value, spec.path, base, file=requested.file)


@functools.cache
def _keys(section: type[Section]) -> frozenset[str]:
    return frozenset(section.model_fields)


@functools.cache
def _default(section: type[Section]) -> Section:
    return section.model_construct()


@functools.cache
def _path_specs(section: type[Section]) -> tuple[FieldSpec, ...]:
    return tuple(spec for key in section.model_fields if (spec := field(key)) is not None and spec.path is not None)
