"""Judges every name of a config: first by what this machine has, then by what a hub answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.field_specs import fields, is_used
from llf_core.config.name_checks.architecture_properties import look_for_properties
from llf_core.config.name_checks.data_sets import look_for_data
from llf_core.config.name_checks.hub import SECONDS, ask
from llf_core.config.name_checks.hub_question import settle
from llf_core.config.name_checks.models import look_for_models
from llf_core.config.name_checks.modules import KEYS, look_for_modules
from llf_core.config.name_checks.output_folder import look_for_output
from llf_core.config.name_checks.paths import look_for_paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llf_core.config.field_specs import FieldSpec
    from llf_core.config.name_checks.results import Found
    from llf_core.config.problem import Problem
    from llf_core.config.run_config import Report, RunConfig

HUB_REWARDS = {"lora", "full"}
"""Values of `reward_model_type` whose `reward_model` is a model."""


def look(config: RunConfig, base: Path | None = None, runs: Iterable[str] = (), home: Path | None = None) -> Found:
    """Judges names by what this machine has; no network, and nothing is read but names and headers.

    Args:
        config: any.
        base: the folder that relative paths start from; unset, the working directory.
        runs: ids of runs, which a reward model may be.
        home: `LLF_HOME`, where it is known: no result is written over what is there.
    """
    folders = (Path.cwd() if base is None else base, Path.cwd())
    found = look_for_output(config, home) + look_for_properties(config)
    for spec in _counting(config):
        if spec.path in {"model", "adapters", "data"}:
            found += look_for_paths(config, spec)
        if spec.path in {"model", "adapters"}:
            found += look_for_models(config, spec, folders, runs)
        elif spec.path == "data":
            found += look_for_data(config, spec, folders)
        elif spec.key in KEYS:
            found += look_for_modules(config, spec)
    return found


def check(
    report: Report,
    *,
    runs: Iterable[str] = (),
    home: Path | None = None,
    starting: bool = False,
    seconds: float = SECONDS,
) -> Report:
    """A report with what its names bring, a hub's answers included.

    Args:
        report: of `validate`.
        runs: ids of runs, which a reward model may be.
        home: see `look`.
        starting: whether a run is about to begin on this machine: what it lacks is then an error, and no warning.
        seconds: the hub is waited for, at most; 0 asks no hub.
    """
    wrong = {problem.key for problem in report.problems if problem.severity == "error"}
    found = look(report.config, report.base, runs, home)
    answers = ask(found.questions, seconds) if found.questions and seconds else {}
    settled = (settle(question, answer) for question, answer in answers.items())
    new = [problem for problem in (*found.problems, *settled) if problem and problem.key not in wrong]
    problems = [*report.problems, *(replace(one, line=report.lines.get(one.key)) for one in new)]
    return report.with_problems([for_a_start(one) for one in problems] if starting else problems)


def for_a_start(problem: Problem) -> Problem:
    """A problem as it is for a run that is about to begin on this machine: what that lacks is an error.

    The table of modules may be older than the model, so what it lacks stays a warning.
    """
    lacks = problem.kind == "unresolved" and problem.severity == "warning" and problem.key not in KEYS
    return replace(problem, severity="error") if lacks else problem


def _counting(config: RunConfig) -> Iterator[FieldSpec]:
    """The fields that the config's stage and plug-ins read."""
    for spec in fields():
        if not is_used(spec, config):
            continue
        if spec.key in {"reward_model", "reward_model_adapters"} and config.get("reward_model_type") not in HUB_REWARDS:
            continue
        yield spec
