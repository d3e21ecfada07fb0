"""The config of a command, checked: its keys, the names in it, and a look at its data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from llf_core.cli.terminal import print_problem
from llf_core.user_error import BAD_CONFIG

if TYPE_CHECKING:
    from llf_core.config import Report, RunConfig

RUNS_CODE = ("trust_remote_code", "allow_pickle")
"""Keys that have code of others run: what is noted of them is always said."""


def load_config(source: str, overrides: list[str] | None = None) -> RunConfig:
    """The config of a command that begins on this machine; says what stands against it."""
    from llf_core.config import validate as check

    report = with_data_checks(with_name_checks(check(source, overrides or ()), starting=True))
    for problem in report.problems:
        if problem.severity != "note" or problem.kind == "unresolved" or problem.key in RUNS_CODE:
            print_problem(problem)
    if not report.ok:
        raise typer.Exit(BAD_CONFIG)
    return report.config


def with_name_checks(report: Report, *, starting: bool = False) -> Report:
    """The report with what the names in it bring."""
    from llf_core.config.name_checks import check as check_names
    from llf_core.runs.folder import home, run_ids

    return check_names(report, runs=run_ids(), home=home(), starting=starting)


def with_data_checks(report: Report) -> Report:
    """The report with what a glance at the data sets brings, where nothing else stands against the config."""
    if not report.ok:
        return report
    from llf_core.data.kind_check import against

    found = (replace(problem, line=report.lines.get(problem.key)) for problem in against(report.config))
    return report.with_problems((*report.problems, *found))
