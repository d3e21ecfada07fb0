"""Loads the config of a command, starts or opens its run, and follows it in the terminal until its end."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from llf_core.cli.terminal import INTERRUPTED, err, in_a_sentence, out, print_json, print_problem
from llf_core.user_error import BAD_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llf_core.config import Report, RunConfig
    from llf_core.launch import Run
    from llf_core.rewards.decorator import RewardFunction
    from llf_core.runs import Status

SETTLE_SECONDS = 10


def follow_run(run: Run, *, as_json: bool) -> None:
    """Show progress until the run ends, then exit with 0, 1, 2 or (interrupted) 130.

    The first Ctrl-C stops the run with a checkpoint, the second kills it.
    """
    if not as_json:
        err.print(f"{run.id}  [dim]{escape(str(run.folder.path))}[/dim]")
    # The end of a container or machine is handled as Ctrl-C is: a checkpoint, a copy, the end.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        interrupted = _wait_for_end(run, progress=not as_json)
        status = _settled(run)
        _wait_for_copy(run)
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        print_json(
            {
                "id": run.id,
                "state": status.state,
                "step": status.step,
                "reason": status.reason,
                "finding": status.finding,
            }
        )
    else:
        at = f" at step {status.step:,} of {status.total:,}" if status.total else ""
        why = " ".join(filter(None, (status.finding, status.reason)))
        out.print(f"{status.state}{at}. {escape(why)}".rstrip())
        if status.state == "stopped":
            out.print(f"Continue with: llf runs resume {run.id}")
        if run.output.is_dir():
            out.print(f"The result is in {run.output}", markup=False)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if status.state not in {"finished", "stopped"}:
        raise typer.Exit(BAD_CONFIG if status.exit_code == BAD_CONFIG else 1)


def _wait_for_end(run: Run, *, progress: bool) -> bool:
    """Whether there was an interrupt, each of which stops or kills the run."""
    interrupted = False
    while True:
        try:
            run.wait(progress=progress, interrupt="raise")
        except KeyboardInterrupt:
            with in_a_sentence():
                run.kill() if interrupted else run.stop()
            if interrupted:
                err.print("Killed.")
            else:
                interrupted = True
                err.print("Stopping after the current step, with a checkpoint. Ctrl-C again kills the run.")
        else:
            return interrupted


def _settled(run: Run) -> Status:
    """The status once the supervisor has stored the exit code."""
    until = time.monotonic() + SETTLE_SECONDS
    status = run.status()
    while (
        status.exit_code is None
        and status.supervisor_process is not None
        and status.supervisor_process.alive()
        and time.monotonic() < until
    ):
        time.sleep(0.02)
        status = run.status()
    return status


def _wait_for_copy(run: Run) -> None:
    """Wait for the copy at `sync_to`: a container ends with the command that it was started for."""
    from llf_core.runs.config_file import read_config

    place, supervisor = read_config(run.folder.config).get("sync_to"), run.status().supervisor_process
    if place and supervisor is not None and supervisor.alive():
        err.print(f"Copying to {escape(str(place))} …")
        while supervisor.alive():
            time.sleep(0.1)


def attach_run(run_id: str) -> Run:
    """Open a run by any name that `llf_core.runs.folder.find_run` knows, or by its address `ssh://host/run`."""
    from llf_core.launch import attach
    from llf_core.remote.address import is_address
    from llf_core.runs.folder import find_run

    with in_a_sentence():
        return attach(run_id if is_address(run_id) else find_run(run_id))


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
    from llf_core.estimate.model_sizes import kernel_problems

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
    from llf_core.user_functions.function_source import functions_under_decorator

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
