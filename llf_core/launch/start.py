"""Starts a run from a config: writes its folder, starts the supervisor, returns."""

from __future__ import annotations

import json
import os
from dataclasses import replace as with_changes
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.launch.environment import start_facts
from llf_core.launch.launchers import keys_of_place, launch_problem, start_run
from llf_core.launch.launchers.torchrun import joins, keys_of_variables, run_to_join
from llf_core.launch.queue import enqueue
from llf_core.launch.run import Run
from llf_core.launch.send_run import add_data, config_there, is_sent, place_of_folder, send_run
from llf_core.launch.sync_process import KEY, ask_place
from llf_core.redaction.url_secrets import URLS_VARIABLE, split_url_secrets
from llf_core.runs import create_run, update_env
from llf_core.runs.creation import write_config
from llf_core.runs.fault_points import reach
from llf_core.runs.folder import home_folder, run_ids
from llf_core.runs.moving import move
from llf_core.runs.trust import sign_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from llf_core.config import Problem, RunConfig
    from llf_core.rewards.signature import RewardFunction
    from llf_core.runs import RunFolder

    DataCheck = Callable[[RunConfig], Sequence[Problem]]


def launch(  # noqa: PLR0913 - each of them is optional and named
    config: object,
    *,
    name: str | None = None,
    rows: object = None,
    rewards: Iterable[RewardFunction | str] | None = None,
    home: Path | str | None = None,
    notebook: dict[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    queue: bool = False,
    data_check: DataCheck | None = None,
    on: str | None = None,
) -> Run:
    """Start a run in separate processes and return at once. The run outlives this process.

    Args:
        config: a `RunConfig`, or anything `RunConfig.load` accepts.
        name: display name of the run; None or empty for `default_name`.
        rows: training data that is not in a file: a list of dicts, a DataFrame or a `datasets.Dataset`. Replaces
            `dataset`.
        rewards: reward functions (see `llf_core.rewards.reward`), or names of built-in ones; also a single one.
            Replaces `reward_functions`.
        home: `LLF_HOME`; None for the environment's.
        notebook: `path` and `cell` of the notebook that starts it, for `env.json`.
        env: additional environment variables, for example `HF_TOKEN`; not stored.
        command: program with its arguments, to start instead of the trainer.
        queue: whether it waits until no other run is active on this machine and none has waited longer.
        data_check: see `load_checked_config`.
        on: where it runs, see `llf_core.launch.launchers.keys_of_place`; None for LLaMA-Factory's variables, else the
            config.
    """
    from llf_core.rewards import REWARDS

    functions = None if rewards is None else REWARDS.by_name(rewards)
    overrides = [] if functions is None else [f"{REWARDS.key}={json.dumps(list(functions))}"]
    place = keys_of_variables(os.environ) if on is None else keys_of_place(on)
    overrides += [f"{key}={json.dumps(value)}" for key, value in place.items()]
    root = home_folder(home)

    def variables(whole: Sequence[str]) -> dict[str, str]:
        addresses = {URLS_VARIABLE: " ".join([os.environ.get(URLS_VARIABLE, ""), *whole])} if whole else {}
        return {**addresses, **(env or {})}

    if rows is None:
        loaded, whole = separate_url_secrets(load_checked_config(config, overrides, root, command, data_check))
        if joins(loaded.flat()):
            return _join(loaded, root, env)

        def fill(new: RunFolder) -> None:
            if is_sent(loaded):
                add_data(new, config_there(loaded))
            _fill(new, loaded, notebook, None, queue)

        return _begin(loaded, functions, name, root, fill, variables(whole), command)
    from llf_core.launch.cell_rows import temporary_rows

    # Where a run lives is known when it is made, and it is made of a config that names its data.
    with temporary_rows(rows, root) as (file, mark):
        named = [*overrides, f"dataset={json.dumps([str(file)])}"]
        loaded, whole = separate_url_secrets(load_checked_config(config, named, root, command, data_check))

        if joins(loaded.flat()):
            return _join(loaded, root, env)

        def fill_with_rows(new: RunFolder) -> None:
            new.data.mkdir()
            move(file, new.data / file.name)
            # relative to config.yaml: the folder may be moved
            inside = config_there(loaded).replace(dataset=f"data/{file.name}")
            write_config(new, inside.yaml(defaults=True))
            _fill(new, inside, notebook, mark, queue)

        return _begin(loaded, functions, name, root, fill_with_rows, variables(whole), command)


def _begin(  # noqa: PLR0913, PLR0917 - what `launch` was given
    config: RunConfig,
    functions: Mapping[str, RewardFunction | None] | None,
    name: str | None,
    root: Path,
    fill: Callable[[RunFolder], None],
    env: Mapping[str, str],
    command: Sequence[str] | None,
) -> Run:
    """Make the folder of a run and start the run, here or on the host that its config names."""
    with place_of_folder(config, root) as place:
        folder = _create(config_there(config), functions, name, place, fill)
        reach("run.created")
        if is_sent(config):
            return Run(send_run(folder, str(config.launch.launch_target), root, env, command))
    start_run(folder, {**env, "LLF_HOME": str(root)}, command)
    return Run(folder)


def _join(config: RunConfig, root: Path, env: Mapping[str, str] | None) -> Run:
    folder = run_to_join(config, root)
    start_run(folder, {**(env or {}), "LLF_HOME": str(root)})
    return Run(folder)


def separate_url_secrets(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """Split a config into the stored version and its full URLs with credentials, which go into the environment."""
    changes, whole = split_url_secrets(config.flat())
    return (config.replace(**changes) if changes else config), whole


def load_checked_config(
    config: object,
    overrides: Sequence[str],
    home: Path | str | None,
    command: Sequence[str] | None,
    data_check: DataCheck | None = None,
) -> RunConfig:
    """Load a config and check that everything it refers to exists on this machine, and that `sync_to` can be written.

    Sends no requests to a hub.

    Args:
        overrides: `key=value`.
        command: see `launch`; another trainer may accept other names.
        data_check: finds problems in the first records of the data sets of a config without other errors, such as
            columns that match no format: `llf_core.data.precheck.dataset_problems`; None checks names only.
    """
    from llf_core.config import Problem, validate
    from llf_core.config.name_checks import check

    report = validate(config, overrides)
    if command is None and not is_sent(report.config):  # what another host lacks is found there
        root = home_folder(home)
        report = check(report, runs=run_ids(root), home=root, starting=True, seconds=0)
    if report.ok and (problem := launch_problem(report.config)) is not None:
        report = report.with_problems((*report.problems, problem))
    if data_check is not None and report.ok and not is_sent(report.config):
        found = (with_changes(problem, line=report.lines.get(problem.key)) for problem in data_check(report.config))
        report = report.with_problems((*report.problems, *found))
    if command is None and report.ok and not is_sent(report.config) and (place := report.config.launch.sync_to):
        message = ask_place("writable", place)
        if message:
            wrong = Problem("unresolved", KEY, place, message, line=report.lines.get(KEY), keys=(KEY,))
            report = report.with_problems((*report.problems, wrong))
    return report.accepted()


def _fill(new: RunFolder, config: RunConfig, notebook: dict[str, str] | None, mark: str | None, queue: bool) -> None:
    """Write everything known before the start, before the folder becomes visible."""
    update_env(new, **start_facts(config, notebook, mark))
    if queue:
        enqueue(new)
    sign_run(new)


def _create(
    config: RunConfig,
    rewards: Mapping[str, RewardFunction | None] | None,
    name: str | None,
    root: Path,
    fill: Callable[[RunFolder], None],
) -> RunFolder:
    from llf_core.metrics import metric_sources
    from llf_core.rewards import reward_sources
    from llf_core.user_functions.function_files import joined, write_code

    code = joined(reward_sources(config, rewards), metric_sources(config.evaluation.metrics or ()))

    def everything(new: RunFolder) -> None:
        write_code(new.code, code)
        fill(new)

    return create_run(config.yaml(defaults=True), name or default_name(config), root, everything)


def default_name(config: RunConfig) -> str:
    """Name of a run that was given none: `run_name`, else `<model>-<stage>-<method>`."""
    if config.training.run_name:
        return config.training.run_name
    model = Path(str(config.get("model_name_or_path"))).name
    return f"{model}-{config.get('stage')}-{config.get('finetuning_type')}"
