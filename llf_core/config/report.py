"""The answer to `validate`: what stands against a config."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llf_core.config.problem import ConfigError

ORDER = {"error": 0, "warning": 1, "note": 2}

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llf_core.config.problem import Kind, Problem
    from llf_core.config.run_config import RunConfig


@dataclass(frozen=True)
class Report:
    """What stands against a config.

    Attributes:
        config: the config; where a value was refused, with the default in its place.
        problems: all of them, errors first.
        lines: the line of each key, counted from 1, where it is known.
        base: the folder that relative paths start from; None for the working directory.
    """

    config: RunConfig
    problems: tuple[Problem, ...]
    lines: Mapping[str, int] = field(default_factory=dict)
    base: Path | None = None

    @property
    def ok(self) -> bool:
        """Whether a run may start: no problem is an error."""
        return not any(problem.severity == "error" for problem in self.problems)

    def accepted(self) -> RunConfig:
        """The config, where a run may start with it.

        Raises:
            ConfigError: with all problems of severity `error`.
        """
        if not self.ok:
            raise ConfigError(tuple(problem for problem in self.problems if problem.severity == "error"))
        return self.config

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
        """Keys that have no effect or another name, each with what happens instead."""
        return self._of("not_needed")

    @property
    def violations(self) -> list[Problem]:
        """Values that are good by themselves and do not go together."""
        return self._of("violation")

    @property
    def unresolved(self) -> list[Problem]:
        """Names of models, data sets and modules that are not there, or could not be checked."""
        return self._of("unresolved")

    def with_problems(self, problems: Iterable[Problem]) -> Report:
        """The report with other problems, sorted errors first."""
        return replace(self, problems=tuple(sorted(problems, key=lambda problem: ORDER[problem.severity])))

    def json(self) -> dict[str, Any]:
        """As plain JSON data."""
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
