"""Loads and checks the config of a command: keys, names, and a preview of its data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from llf_core.cli.terminal import print_problem
from llf_core.user_error import BAD_CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llf_core.config import Report, RunConfig

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
    from llf_core.data.media_problems import media_problems
    from llf_core.data.precheck import dataset_problems, template_problems
    from llf_core.estimate.fast_kernels import kernel_problems

    config = report.config
    of_data = (*dataset_problems(config), *media_problems(config))
    problems = (*of_data, *template_problems(config), *kernel_problems(config))
    found = (replace(problem, line=report.lines.get(problem.key)) for problem in problems)
    return report.with_problems((*report.problems, *found))
