"""A run's config: immutable, valid, and the same in a form, a file and a cell; and how one is validated."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llf_core.config.build import validate_as
from llf_core.config.classify_key import without_renamed
from llf_core.config.field_specs import fields, is_used, plain
from llf_core.config.number_format import exact
from llf_core.config.read_config import dump_yaml
from llf_core.config.rule import ConfigError
from llf_core.config.values import ConfigValues
from llf_core.untrusted import BIDI_CONTROLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from llf_core.config.rule import Kind, Problem

ALWAYS_SHOWN = ("model_name_or_path", "stage", "finetuning_type")
ORDER = {"error": 0, "warning": 1, "note": 2}


class RunConfig(ConfigValues):
    """Configuration of a run, in sections; created by `RunConfig.load`."""

    @classmethod
    def load(cls, source: object, overrides: Sequence[str] = (), base: str | Path | None = None) -> RunConfig:
        """Read and validate a config that a run may start with; `validate` reports warnings and notes too.

        Args:
            source: a mapping, YAML or JSON text, a path to a file of them, or a `RunConfig`. An empty one leaves every
                key at its default.
            overrides: `key=value`, the value as YAML; a single text is one of them. They replace values of the source.
            base: folder that relative paths start from. Default: the file's folder, or the working directory.

        Raises:
            ConfigError: the config cannot be read or has errors; it holds all of them.
        """
        return validate(source, overrides, base).accepted()

    def flat(self, defaults: bool = False) -> dict[str, Any]:
        """Convert to a flat dictionary, as in a config file.

        Args:
            defaults: with the defaults of all sections and selected plug-ins, so that the file also means the same in a
                later version; else only what differs from them, and always model, stage and method.
        """
        shown = {}
        for spec in fields():
            value = plain(self.get(spec.key))
            if (defaults and is_used(spec, self)) or value != spec.default or spec.key in ALWAYS_SHOWN:
                shown[spec.key] = value
        return shown

    def yaml(self, defaults: bool = False) -> str:
        """Convert to YAML, as which a run stores its config; see `flat`."""
        # A file with `do_predict` and without `do_train` asks for predictions alone.
        more = {"do_train": True} if self.evaluation.do_predict else {}
        return dump_yaml(self.flat(defaults) | more)

    def python(self, variables: Mapping[str, str] = MappingProxyType({})) -> str:
        """Write a notebook cell that trains this config, with the values that differ from their defaults.

        Args:
            variables: names of notebook variables by key, which replace values of the config: `{"dataset": "rows"}`.
        """
        literals = {key: _literal(value) for key, value in self.flat().items()} | dict(variables)
        lines = [f"        {json.dumps(key)}: {literal}," for key, literal in literals.items()]
        start = ["import llf_widgets as llf", "", "run = llf.train(", "    {"]
        return "\n".join([*start, *lines, "    }", ")", "llf.Monitor(run)", ""])

    def replace(self, **changes: object) -> RunConfig:
        """Return a copy with changed values, validated as a whole; None resets a key to its default.

        Args:
            changes: values by key; also by an older or second name such as `warmup_ratio`, as in a file.

        Raises:
            ConfigError: a key is unknown, or the changed config has errors.
        """
        values = without_renamed(self.flat(), changes) | changes
        reset = {spec.key for spec in fields() if spec.key in changes and changes[spec.key] is None}
        return RunConfig.load({key: value for key, value in values.items() if key not in reset})

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value!r}" for key, value in self.flat().items())
        return f"RunConfig({shown})"


@dataclass(frozen=True)
class Report:
    """Result of validating a config.

    Attributes:
        config: with the default in place of each refused value.
        lines: the line of each key, counted from 1, where it is known.
        base: the folder that relative paths start from; None for the working directory.
    """

    config: RunConfig
    problems: tuple[Problem, ...]
    lines: Mapping[str, int] = field(default_factory=dict)
    base: Path | None = None

    @property
    def ok(self) -> bool:
        """Whether the config has no errors, so that a run may start."""
        return not any(problem.severity == "error" for problem in self.problems)

    def accepted(self) -> RunConfig:
        """Return the config if it has no errors.

        Raises:
            ConfigError: the config has errors; it holds all of them.
        """
        if not self.ok:
            raise ConfigError(tuple(problem for problem in self.problems if problem.severity == "error"))
        return self.config

    @property
    def unknown(self) -> list[Problem]:
        """Unknown keys (errors), each with the most similar known name."""
        return self._of("unknown")

    @property
    def not_built(self) -> list[Problem]:
        """Known keys and values whose feature is not supported yet (errors)."""
        return self._of("not_built")

    @property
    def invalid(self) -> list[Problem]:
        """Values of the wrong type or outside their range, and text that cannot be read."""
        return self._of("invalid")

    @property
    def not_needed(self) -> list[Problem]:
        """Keys that have no effect or another name (notes), each with what happens instead."""
        return self._of("not_needed")

    @property
    def violations(self) -> list[Problem]:
        """Combinations of values that break a rule."""
        return self._of("violation")

    @property
    def unresolved(self) -> list[Problem]:
        """Names of models, data sets and modules that do not exist or could not be checked (`name_checks.check`)."""
        return self._of("unresolved")

    def with_problems(self, problems: Iterable[Problem]) -> Report:
        """Return a copy with other problems in place of its own, errors first."""
        return replace(self, problems=tuple(sorted(problems, key=lambda problem: ORDER[problem.severity])))

    def json(self) -> dict[str, Any]:
        """Convert to plain data without secrets: `ok`, and a list of `Problem.json` for each kind of problem."""
        return {
            "ok": self.ok,
            "unknown": [problem.json() for problem in self.unknown],
            "not_built": [problem.json() for problem in self.not_built],
            "invalid": [problem.json() for problem in self.invalid],
            "not_needed": [problem.json() for problem in self.not_needed],
            "violations": [problem.json() for problem in self.violations],
            "unresolved": [problem.json() for problem in self.unresolved],
        }

    def _of(self, kind: Kind) -> list[Problem]:
        return [problem for problem in self.problems if problem.kind == kind]


def validate(source: object, overrides: Sequence[str] = (), base: str | Path | None = None) -> Report:
    """Validate a config without raising on invalid content. Opens no model and no data set, and queries no hub.

    `name_checks.check` checks that the models and data sets that it names exist.

    Args:
        source: a mapping, YAML or JSON text, a path to a file of them, or a `RunConfig`. An empty one leaves every key
            at its default. Anything else is a problem of the report.
        overrides: `key=value`, the value as YAML; a single text is one of them. They replace values of the source.
        base: folder that relative paths start from. Default: the file's folder, or the working directory.
    """
    found = validate_as(source.flat() if isinstance(source, RunConfig) else source, overrides, base, RunConfig)
    return Report(found.config, (), found.lines, found.base).with_problems(found.problems)


def _literal(value: object) -> str:
    match value:
        case str():
            return BIDI_CONTROLS.sub(lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(value, ensure_ascii=False))
        case float():
            return exact(value) if math.isfinite(value) else f'float("{value}")'
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case dict():
            return f"{{{', '.join(f'{_literal(key)}: {_literal(inner)}' for key, inner in value.items())}}}"
    return repr(value)
