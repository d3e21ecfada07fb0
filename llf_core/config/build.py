"""Builds a valid config from requested values, with the problems found."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import ValidationError

from llf_core.config.classify_key import classify, is_known, show
from llf_core.config.did_you_mean import listed
from llf_core.config.evaluation_keys import PREDICTION_KEYS
from llf_core.config.field_specs import SECTIONS, USED_BY_OTHERS, field, plain
from llf_core.config.key_aliases import translate
from llf_core.config.option import split_names
from llf_core.config.paths import absolute
from llf_core.config.read_config import read
from llf_core.config.registry import all_declared, broken, stage_of, uncalled
from llf_core.config.rule import Fix, Problem
from llf_core.config.rules import all_rules
from llf_core.untrusted import brief, leads_to_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llf_core.config.declaration import StageDeclaration
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


MAX_UNKNOWN = 50
"""Maximum number of unknown keys that are reported one by one."""


@dataclass(frozen=True)
class ValidationResult(Generic[ConfigT]):
    """A config and its problems.

    Attributes:
        config: with the default in place of each rejected value.
        problems: in the order in which they were found.
        lines: the line of each key, counted from 1, if known.
        base: the folder that relative paths start from.
    """

    config: ConfigT
    problems: list[Problem]
    lines: dict[str, int]
    base: Path


def validate_as(
    source: object, overrides: Sequence[str], base: str | Path | None, config_class: type[ConfigT]
) -> ValidationResult[ConfigT]:
    """Read and validate a config of a given class, without raising on invalid content; see `run_config.validate`."""
    requested = read(source, overrides, base)
    translate(requested)
    problems, values = requested.problems, {}
    unreported = [key for key in requested.values if not is_known(key)][MAX_UNKNOWN:]
    set_aside = set(unreported)
    for key, value in requested.values.items():
        if key in set_aside:
            continue
        problem = classify(key, value, requested.lines.get(key))
        if problem is not None:
            problems.append(problem)
        elif field(key) is not None:
            values[key] = value
    if unreported:
        message = (
            f"{len(unreported):,} more keys are unknown: {listed(map(brief, unreported))}. Expected a training config."
        )
        removal = Fix("Remove them", dict.fromkeys(unreported))
        problems.append(Problem("unknown", unreported[0], None, message, (removal,), keys=tuple(unreported)))
    config, refused = build(values, requested, config_class)
    problems += refused
    wrong = {problem.key for problem in problems if problem.severity == "error"}
    if requested.values or not problems:  # if the file cannot be read, that is the only problem
        problems += _violations(config, wrong, requested.lines)
    reported = {key for problem in problems if problem.kind == "violation" for key in problem.keys[:1]}
    without = _without_effect(config, values, requested.lines)
    problems += [problem for problem in without if problem.key not in reported]
    return ValidationResult(config, problems, requested.lines, requested.base)


def _violations(config: ConfigValues, wrong: set[str], lines: dict[str, int]) -> list[Problem]:
    found = [
        Problem("violation", "", None, f"The {one.kind} {one.name}: {one.reason}", severity="warning")
        for one in broken()
    ]
    found += [
        Problem("violation", "", None, f"The {one.kind} {one.name}: {one.reason}", severity="error")
        for one in uncalled()
    ]
    for rule in all_rules():
        problem = None if wrong.intersection(rule.fields) else rule.check(config)
        if problem is not None:
            line = next((lines[key] for key in rule.fields if key in lines), None)
            found.append(replace(problem, line=line))
    return found


def _without_effect(config: ConfigValues, values: dict[str, object], lines: dict[str, int]) -> list[Problem]:
    """Notes about options that nothing reads and that differ from their defaults."""
    found = []
    stage = stage_of(config)
    used = {"watched_prompts", "watched_tokens", *stage.generation_keys}
    if config.evaluation.do_predict:
        used |= PREDICTION_KEYS
    for key, value in values.items():
        spec = field(key)
        if spec is None or plain(config.get(key)) == spec.default:
            continue
        plugin = all_declared()[spec.owner] if spec.owner else None
        if spec.section in USED_BY_OTHERS:
            message = f"`{key}` has no effect on training. {USED_BY_OTHERS[spec.section]}."
        elif plugin is not None and key != plugin.selector and not plugin.is_selected(config):
            message = f"`{key}` has no effect, since the {plugin.kind} {plugin.name} is not selected."
        elif spec.stages and config.stage.stage not in spec.stages:
            message = (
                f"`{key}` has no effect in stage {config.stage.stage}. Stages that use it: {_stages(spec.stages)}."
            )
        elif spec.methods and config.method.finetuning_type not in spec.methods:
            message = (
                f"`{key}` has no effect with finetuning_type {config.method.finetuning_type}. Methods that use it: "
                f"{_stages(spec.methods)}."
            )
        elif spec.section == "generation" and key not in used:
            message = f"`{key}` has no effect in stage {config.stage.stage}, {_answers(stage)}"
        else:
            continue
        found.append(Problem("not_needed", key, value, message, severity="note", line=lines.get(key), keys=(key,)))
    return found


def _answers(stage: StageDeclaration) -> str:
    if not stage.generation_keys:
        return "which does not sample completions."
    return f"which samples completions with {_stages(stage.generation_keys)}."


def _stages(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" if "_" in name else name for name in names)
