"""Judges what was asked for: unknown, not built, invalid, not needed, impossible together."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llf_core.config.known import known
from llf_core.config.option import Section, split_names
from llf_core.config.paths import absolute
from llf_core.config.problem import Fix, Kind, Problem
from llf_core.config.registry import broken
from llf_core.config.rules import all_rules
from llf_core.config.run_config import RunConfig
from llf_core.config.source import Asked, read
from llf_core.config.spec import SECTIONS, FieldSpec, field, fields, option_classes
from llf_core.config.translate import translate

ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Report:
    """What stands against a config.

    Attributes:
        config: the config, with the defaults where a value was refused; None where nothing could be read.
        problems: all of them, errors first, in the order of the file.
    """

    config: RunConfig | None
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether a run may start: no problem is an error."""
        return not any(problem.severity == "error" for problem in self.problems)

    @property
    def unknown(self) -> list[Problem]:
        """Keys that nobody knows, each with the nearest name."""
        return self._of("unknown")

    @property
    def not_built(self) -> list[Problem]:
        """Known keys and values whose feature is not built yet."""
        return self._of("not_built")

    @property
    def invalid(self) -> list[Problem]:
        """Values of the wrong type or outside their range, and text that cannot be read."""
        return self._of("invalid")

    @property
    def not_needed(self) -> list[Problem]:
        """Keys that have no effect, each with what happens instead."""
        return self._of("not_needed")

    @property
    def violations(self) -> list[Problem]:
        """Values that are good by themselves and do not go together."""
        return self._of("violation")

    def json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {
            "ok": self.ok,
            "unknown": [problem.json() for problem in self.unknown],
            "not_built": [problem.json() for problem in self.not_built],
            "invalid": [problem.json() for problem in self.invalid],
            "not_needed": [problem.json() for problem in self.not_needed],
            "violations": [problem.json() for problem in self.violations],
        }

    def _of(self, kind: Kind) -> list[Problem]:
        return [problem for problem in self.problems if problem.kind == kind]


def validate(source: object, overrides: Sequence[str] = (), base: str | Path | None = None) -> Report:
    """Checks a config and never raises on what it holds.

    Args:
        source: as for `RunConfig.load`.
        overrides: `key=value`, the value as YAML.
        base: where relative paths start.

    Returns:
        All problems at once, rules between fields included.
    """
    return judge(source, overrides, base)


def judge(source: object, overrides: Sequence[str] = (), base: str | Path | None = None) -> Report:
    """Reads, classifies and checks a config: the one way from a source to a `RunConfig`."""
    if isinstance(source, RunConfig):
        source = source.flat()
    asked = read(source, overrides, base)
    translate(asked)
    problems = asked.problems
    values = {}
    for key, value in asked.values.items():
        problem = _classify(key, value, asked)
        if problem is not None:
            problems.append(problem)
        elif field(key) is not None:
            values[key] = value
    parts, refused = _build(values, asked)
    problems += refused
    config = RunConfig(
        **{name: parts[name] for name in SECTIONS},  # type: ignore[arg-type]
        plugin_options={name: parts[name] for name in option_classes()},
    )
    problems += _check_rules(config, {problem.key for problem in problems if problem.severity == "error"}, asked)
    problems += _without_effect(config, values, asked)
    problems.sort(key=lambda problem: ORDER[problem.severity])
    return Report(config, tuple(problems))


def _classify(key: str, value: Any, asked: Asked) -> Problem | None:
    """What is wrong with a key before its type is looked at."""
    listed = known()
    line = asked.lines.get(key)
    if key in listed.secrets and field(key) is None:
        return None if value is None else _secret(key, listed.secrets[key], line)
    spec = field(key)
    if spec is not None:
        return _not_built_value(spec, value, listed.values.get(key, {}), line)
    if key in listed.not_needed:
        message = f"`{key}` is not needed. {listed.not_needed[key]}"
        return Problem("not_needed", key, value, message, severity="note", line=line)
    if key in listed.features:
        if any(_same(value, harmless) for harmless in listed.defaults[key]):
            return None
        message = f"`{key}` is {_show(value)}, but {listed.features[key]} is not built yet. Take the key out to run."
        return Problem("not_built", key, value, message, (Fix(f"Take out {key}", {key: None}),), line=line)
    return _unknown(key, value, line)


def _secret(key: str, variable: str, line: int | None) -> Problem:
    message = (
        f"`{key}` is a secret, and a config is kept with its run. Set the environment variable {variable} instead, "
        "and take the key out."
    )
    return Problem("invalid", key, None, message, (Fix(f"Take out {key}", {key: None}),), line=line)


def _not_built_value(spec: FieldSpec, value: Any, values: Mapping[Any, str], line: int | None) -> Problem | None:
    if isinstance(value, list | dict) or value not in values or isinstance(value, bool):
        return None
    if spec.choices and value in spec.choices:
        return None
    message = f"`{spec.key}` is {_show(value)}, but {values[value]} is not built yet. Expected {spec.expected}."
    fixes = (Fix(f"Set to {_show(spec.default)}", {spec.key: spec.default}),)
    return Problem("not_built", spec.key, value, message, fixes, line=line)


def _unknown(key: str, value: Any, line: int | None) -> Problem:
    names = [*(spec.key for spec in fields()), *known().keys]
    nearest = difflib.get_close_matches(key, names, n=1)
    if not nearest:
        return Problem("unknown", key, value, f"`{key}` is no key of a config.", (_out(key),), line=line)
    message = f"`{key}` is no key of a config. The nearest is `{nearest[0]}`."
    return Problem(
        "unknown", key, value, message, (Fix(f"Call it {nearest[0]}", {key: None, nearest[0]: value}), _out(key)), line=line
    )


def _out(key: str) -> Fix:
    return Fix(f"Take out {key}", {key: None})


def _build(values: dict[str, Any], asked: Asked) -> tuple[dict[str, Section], list[Problem]]:
    """Makes every section; a value that is refused is replaced by its default, so that the rest is checked too."""
    classes: dict[str, tuple[type[Section], str, str | None]] = {
        name: (section, name, None) for name, section in SECTIONS.items()
    }
    classes |= {name: (plugin.Options, plugin.section, plugin.name) for name, plugin in option_classes().items()}
    parts, problems = {}, []
    for name, (section, _, _) in classes.items():
        own = {key: value for key, value in values.items() if key in section.model_fields}
        refused: dict[str, str] = {}
        for key in list(own):
            reason = _refuse_choice(field(key), own[key])
            if reason:
                refused[key] = reason
                own.pop(key)
        try:
            part = section(**own)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                key = str(detail["loc"][0]) if detail["loc"] else ""
                refused[key] = detail["msg"].removeprefix("Value error, ") if detail["type"] == "value_error" else ""
            part = section(**{key: value for key, value in own.items() if key not in refused})
        problems += [_invalid(key, values.get(key), reason, asked) for key, reason in refused.items()]
        parts[name] = _with_absolute_paths(part, asked)
    return parts, problems


def _refuse_choice(spec: FieldSpec | None, value: Any) -> str:
    """Choices that pydantic cannot know: plug-ins' names, and each of several names."""
    if spec is None or spec.choices is None or value is None:
        return ""
    if spec.type == "names":
        names = split_names(value)
        good = isinstance(names, tuple) and all(name in spec.choices for name in names)
        return "" if good else f"expected {spec.expected}"
    if spec.type != "text" or (isinstance(value, str) and value in spec.choices):
        return ""
    reasons = [one.reason for one in broken() if one.name == value]
    return reasons[0] if reasons else f"expected {spec.expected}"


def _invalid(key: str, value: Any, reason: str, asked: Asked) -> Problem:
    spec = field(key)
    line = asked.lines.get(key)
    if spec is None:
        return Problem("invalid", key, value, f"{reason}.", line=line)
    message = f"{spec.label} (`{key}`) is {_show(value)}. Expected {spec.expected}."
    if reason and not reason.startswith("expected "):
        message = f"{spec.label} (`{key}`) is {_show(value)}: {reason.rstrip('.')}."
    fixes = (Fix(f"Set to {_show(spec.default)}", {key: spec.default}),)
    return Problem("invalid", key, value, message, fixes, line=line)


def _with_absolute_paths(part: Section, asked: Asked) -> Section:
    changes: dict[str, Any] = {}
    for key in type(part).model_fields:
        spec = field(key)
        value = getattr(part, key)
        if spec is None or spec.path is None or value is None:
            continue
        if key == "dataset_dir" and key not in asked.values and not (asked.base / value / "dataset_info.json").is_file():
            continue
        if isinstance(value, tuple):
            changes[key] = tuple(absolute(one, spec.path, asked.base, file=asked.file) for one in value)
        else:
            changes[key] = absolute(value, spec.path, asked.base, file=asked.file)
    return part.model_copy(update=changes)


def _check_rules(config: RunConfig, refused: set[str], asked: Asked) -> list[Problem]:
    found = []
    for rule in all_rules():
        if refused.intersection(rule.fields):
            continue
        problem = rule.check(config)
        if problem is not None:
            line = next((asked.lines[key] for key in rule.fields if key in asked.lines), None)
            found.append(
                Problem(
                    problem.kind, problem.key, problem.value, problem.message, problem.fixes, problem.severity, line,
                    problem.keys,
                )
            )
    return found


def _without_effect(config: RunConfig, values: dict[str, Any], asked: Asked) -> list[Problem]:
    """Options of plug-ins that are not selected."""
    found = []
    for key, value in values.items():
        spec = field(key)
        if spec is None or spec.plugin is None:
            continue
        owner = next(one for one in option_classes().values() if one.name == spec.plugin and one.section == spec.section)
        if not owner.selected(config) and config.get(key) != type(config.options(spec.plugin)).model_fields[key].default:
            message = f"`{key}` has no effect, since the {owner.kind} {owner.name} is not selected."
            found.append(
                Problem("not_needed", key, value, message, severity="note", line=asked.lines.get(key), keys=(key,))
            )
    return found


def _same(value: Any, harmless: Any) -> bool:
    """Equal, where 0 and false are not, and 2 and 2.0 are."""
    return isinstance(value, bool) == isinstance(harmless, bool) and value == harmless


def _show(value: Any) -> str:
    """A value as it stands in a file, short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"  # noqa: PLR2004 - a message is one line
