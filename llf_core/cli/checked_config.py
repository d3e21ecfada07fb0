"""Loads what a command is given: a checked config, with a preview of its data, and reward functions of a file."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from llf_core.cli.errors import in_a_sentence
from llf_core.cli.terminal import err, print_problem
from llf_core.user_error import BAD_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llf_core.config import Report, RunConfig
    from llf_core.rewards.signature import RewardFunction

RUNS_CODE = ("trust_remote_code", "allow_pickle")
"""Keys that have code of others run: their notes are always printed."""


def load_config(source: str, overrides: list[str] | None = None, *, data: bool = True) -> RunConfig:
    """Load the config that a command carries out, and print its problems to stderr.

    Args:
        data: whether the command needs more of the config than model and method; else other problems are ignored.
    """
    from llf_core.config import validate as check
    from llf_core.config.trained_keys import only_trained_keys

    report = with_name_checks(check(source, overrides or ()), starting=True)
    return accepted(with_data_checks(report) if data else only_trained_keys(report))


def prediction_report(values: Mapping[str, object], base: Path) -> Report:
    """Check the config of a prediction, whose `dataset` then is the data set to predict."""
    from llf_core.config import validate as check
    from llf_core.config.evaluation_keys import prediction_values

    return with_data_checks(with_name_checks(check(prediction_values(values), base=base), starting=True))


def evaluation_report(values: Mapping[str, object], base: Path) -> Report:
    """Check the config of an evaluation, its model and the data that it names."""
    from llf_core.config import validate as check
    from llf_core.config.evaluation_keys import EVALUATION_KEYS, names_task
    from llf_core.config.trained_keys import only_trained_keys

    asked = {key: value for key, value in values.items() if key not in EVALUATION_KEYS}
    names = None if names_task(values) else values.get("eval_dataset") or values.get("dataset")
    if not names:
        return only_trained_keys(with_name_checks(check(asked, base=base), starting=True))
    asked |= {key: values[key] for key in ("dataset_dir", "max_samples") if key in values} | {"dataset": names}
    return with_data_checks(with_name_checks(check(asked, base=base), starting=True))


def accepted(report: Report) -> RunConfig:
    """Print the problems of a config to stderr, all at once, and return it if it has no errors.

    Of its notes, only those that no check could resolve and those of `RUNS_CODE`.
    """
    for problem in report.problems:
        if problem.severity != "note" or problem.kind == "unresolved" or problem.key in RUNS_CODE:
            print_problem(problem)
    if not report.ok:
        raise typer.Exit(BAD_CONFIG)
    return report.config


def with_name_checks(report: Report, *, starting: bool = False) -> Report:
    """Add the problems of names in the config; `starting` a run, a missing path is an error instead of a warning."""
    from llf_core.config.name_checks import check as check_names
    from llf_core.runs.folder import home, run_ids

    return check_names(report, runs=run_ids(), home=home(), starting=starting)


def with_data_checks(report: Report) -> Report:
    """Add the problems found in the first records of the data sets, if the config has no other errors."""
    if not report.ok:
        return report
    from llf_core.data.precheck import dataset_problems, media_problems, template_problems
    from llf_core.estimate.fast_kernels import kernel_problems

    config = report.config
    of_data = (*dataset_problems(config), *media_problems(config))
    problems = (*of_data, *template_problems(config), *kernel_problems(config))
    found = (replace(problem, line=report.lines.get(problem.key)) for problem in problems)
    return report.with_problems((*report.problems, *found))


def functions_of_file(path: Path | None) -> dict[str, RewardFunction]:
    """Load the reward functions in the file of `--rewards`, by the names that a config uses. The file is executed."""
    if path is None:
        return {}
    from llf_core.rewards import REWARDS
    from llf_core.user_functions.function_files import functions_under_decorator

    with in_a_sentence():
        found = REWARDS.by_name(functions_under_decorator(path, REWARDS))
        return {name: one for name, one in found.items() if one is not None}


def load_with_rewards(
    source: str, overrides: list[str] | None, given: Mapping[str, RewardFunction]
) -> tuple[RunConfig, list[RewardFunction | str] | None]:
    """Load the config of a command that has `--rewards`; one that names no reward functions gets those of the file.

    Args:
        given: functions of the file by name; empty without `--rewards`.

    Returns:
        The config; and its reward functions, of which those of the file are functions and the others names. None
        without `--rewards`.
    """
    from llf_core.config.read_config import read
    from llf_core.rewards import REWARDS

    if not given:
        return load_config(source, overrides), None
    named = read(source, overrides or ()).values.get(REWARDS.key)
    loaded = load_config(source, [*(overrides or ()), *([] if named else [f"{REWARDS.key}={json.dumps([*given])}"])])
    names = loaded.get(REWARDS.key) or ()
    say_unused("The config", given, names)
    return loaded, [given.get(one, one) for one in names]


def say_unused(who: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Print which of the given reward functions are not known to `who`, the subject of the sentence."""
    used = set(known)
    others = ", ".join(name for name in given if name not in used)
    if others:
        err.print(f"{who} has no reward function {others}: ignored.", highlight=False)
