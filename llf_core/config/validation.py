from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from llf_core.config.build import build
from llf_core.config.classify_key import classify, is_known
from llf_core.config.did_you_mean import listed
from llf_core.config.evaluation_keys import PREDICTION_KEYS
from llf_core.config.field_specs import USED_BY_OTHERS, field, plain
from llf_core.config.key_aliases import translate
from llf_core.config.problem import Fix, Problem
from llf_core.config.read_config import read
from llf_core.config.registry import all_declared, broken, stage_of, uncalled
from llf_core.config.rules import all_rules
from llf_core.config.values import ConfigValues
from llf_core.untrusted import brief

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llf_core.config.declaration import StageDeclaration

ConfigT = TypeVar("ConfigT", bound=ConfigValues)
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
