"""The next attempt of a run that has ended: in the same folder, from its newest complete checkpoint."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from llf_core.launch.environment import threads_of_config
from llf_core.launch.sync_process import KEY, ask_place
from llf_core.redaction.redact_text import missing_url_secrets
from llf_core.runs import Checkpoints, status, update_env
from llf_core.runs.config_file import read_config, run_config
from llf_core.runs.control import belongs_to_run
from llf_core.runs.creation import write_config
from llf_core.runs.disk_errors import failure_message, is_disk_error
from llf_core.runs.foreign_code import check_run
from llf_core.runs.listing import shown_status
from llf_core.runs.run_store import run_place
from llf_core.runs.status import keep_reason
from llf_core.runs.trust import sign_run
from llf_core.runs.writer import write_event
from llf_core.untrusted import leads_to_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llf_core.config import Problem, RunConfig
    from llf_core.rewards.decorator import RewardFunction
    from llf_core.runs import RunFolder, Status
    from llf_core.runs.process import ProcessId


TEARDOWN_SECONDS = 20.0
"""Maximum seconds to wait until the processes of the last attempt have exited; chosen by hand."""


def resume(  # noqa: PLR0913 - each of them is optional
    folder: RunFolder,
    env: Mapping[str, str] | None = None,
    rewards: Iterable[RewardFunction | str] | None = None,
    trust: bool | str = False,
    *,
    check_config: bool = True,
    num_processes: int | None = None,
) -> None:
    """Begin the next attempt of an ended run, so that a supervisor can be started for it.

    It continues from the newest complete checkpoint, else from the beginning.

    Args:
        env: additional environment variables of its processes.
        rewards: fixed reward functions, which replace those of the same names.
        trust: whether the user allows its code, see `llf_core.runs.foreign_code.check_run`.
        check_config: whether its config must be valid; not for a command that replaces the trainer.
        num_processes: number of processes that go on, see `settings_of_processes`.

    Raises:
        RuntimeError: it has not ended, or it has finished; another process has resumed it, or another machine trains
            it; a process of the last attempt does not exit; the disk is full.
    """
    now = shown_status(folder)
    if now.state == "finished":
        raise RuntimeError(f"{folder.id} has finished. Start a new run to train further.")
    if not now.has_ended:
        raise RuntimeError(f"{folder.id} is {now.state}. Expected a run that has ended. Stop it first.")
    if check_config:
        check_stored(folder, "resume", env, now.supervisor_process)
    check_run(folder, trust, f"run.resume(trust=True), or in a terminal: llf runs resume {folder.id} --trust")
    changed = None if num_processes is None else _other_processes(folder, num_processes)
    _wait_for_teardown(folder, now)
    _check_elsewhere(folder)
    if changed is not None:
        config_yaml, threads = changed
        write_config(folder, config_yaml)
        update_env(folder, threads=threads)
    replaced = [] if rewards is None else _replace_rewards(folder, rewards, now.attempt)
    _begin_attempt(folder, now, {"rewards": replaced} if replaced else {})


def _other_processes(folder: RunFolder, processes: int) -> tuple[str, int]:
    """The config as YAML and the number of threads of each process for another number of processes."""
    from llf_core.config import RunConfig
    from llf_core.config.read_config import dump_yaml

    values = read_config(folder.config, named=False) | settings_of_processes(run_config(folder), processes)
    return dump_yaml(values), threads_of_config(RunConfig.load(values, base=folder.path))


def _check_elsewhere(folder: RunFolder) -> None:
    place = read_config(folder.config).get(KEY)
    if place:
        message = ask_place("training", run_place(str(place), folder.id))
        if message:
            raise RuntimeError(message)


def _wait_for_teardown(folder: RunFolder, now: Status) -> None:
    if not now.is_on_this_host:
        return
    until = time.monotonic() + TEARDOWN_SECONDS
    for process in (now.trainer, now.supervisor_process):
        while process is not None and process.alive():
            if time.monotonic() > until:
                raise RuntimeError(f"Process {process.pid} of the last attempt is still running. Kill it, then resume.")
            if process == now.supervisor_process and belongs_to_run(process, folder):
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGHUP)  # it may still copy the last state, as the next attempt will
            time.sleep(0.05)


def _replace_rewards(folder: RunFolder, rewards: Iterable[RewardFunction | str], attempt: int) -> list[str]:
    from llf_core.rewards import replace_code

    return replace_code(folder, rewards, attempt)


def _begin_attempt(folder: RunFolder, last: Status, fields: Mapping[str, object]) -> None:
    """Write the status and the event of the next attempt; with a full disk the attempt fails at once."""
    checkpoints, attempt = Checkpoints(folder), last.attempt + 1
    steps = checkpoints.list()
    step = steps[-1] if steps else 0
    checkpoint = f"checkpoints/{checkpoints.path(step).name}" if steps else None
    if leads_to_file(folder.trained):  # only predictions are left
        step = max(step, last.step)
    try:
        status.begin_attempt(folder, attempt, step=step)
        write_event(folder, attempt, "resumed", from_step=step, checkpoint=checkpoint, **fields)
        sign_run(folder)
    except OSError as error:
        if not is_disk_error(error):
            raise
        reason = " ".join(failure_message(folder, error))
        try:
            status.update(folder, of_attempt=attempt, state="failed", reason=reason)
        except OSError:
            keep_reason(folder, attempt, reason)
        raise RuntimeError(reason) from error


def settings_of_processes(config: RunConfig, processes: int) -> dict[str, int]:
    """Settings that share the examples of a step among another number of processes, without larger batches per process.

    ```
    2 processes with batches of 2:  4 processes with batches of 1, or 1 with batches of 2 and 2 accumulation steps
    ```

    Raises:
        ValueError: these processes cannot make the same steps.
    """
    training, before = config.training, config.launch.num_processes
    batch, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    if processes < 1:
        raise ValueError(f"num_processes is {processes}. Expected at least 1.")
    if processes == before:
        return {}
    if training.train_sampling_strategy == "group_by_length":
        raise ValueError(
            "`train_sampling_strategy: group_by_length` orders the examples by the batch size of each process: with "
            f"{processes} processes instead of {before}, some would be read twice. Resume with {before}."
        )
    whole = batch * before * accumulation
    share, left = divmod(whole, processes)
    if left or (training.dataloader_drop_last and batch * before % processes):
        fitting = [n for n in range(1, whole + 1) if not whole % n]
        if training.dataloader_drop_last:  # what an epoch drops depends on the size of a batch of all processes
            fitting = [n for n in fitting if not batch * before % n]
        raise ValueError(
            f"A step of this run has {whole} examples, which {processes} processes cannot share equally. Expected "
            f"num_processes to be one of {', '.join(map(str, fitting))}."
        )
    if training.dataloader_drop_last:
        size = batch * before // processes
    else:
        size = next(n for n in range(min(batch, share), 0, -1) if not share % n)
    return {
        "num_processes": processes,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": share // size,
    }


def check_stored(
    folder: RunFolder, what: str, env: Mapping[str, str] | None = None, last: ProcessId | None = None
) -> None:
    """Check that a run's `config.yaml` is still valid and can be started, before anything is changed.

    Args:
        last: supervisor of the last attempt, which may hold a port for a moment.
    """
    config = stored_config(folder, what)
    check_urls(config.flat(), what, env)
    check_place(config, last)


def check_place(config: RunConfig, last: ProcessId | None = None) -> None:
    """Check that a config can be started where it says, once more while a process of the last attempt ends.

    Raises:
        ConfigError: it cannot; the message has the reason.
    """
    from llf_core.config import ConfigError
    from llf_core.launch.launchers import launch_problem

    until = time.monotonic() + TEARDOWN_SECONDS
    while (problem := launch_problem(config)) and last is not None and last.alive() and time.monotonic() < until:
        time.sleep(0.2)
    if problem is not None:
        raise ConfigError((problem,))


def stored_config(folder: RunFolder, what: str) -> RunConfig:
    """The config of a run; `what` is the verb of the message, such as `resume`.

    Raises:
        ConfigError: the config has errors; it holds each with file, line and fix.
    """
    from llf_core.config import ConfigError, validate

    report = validate(folder.config)
    errors = [problem for problem in report.problems if problem.severity == "error"]
    if errors:
        raise ConfigError(tuple(replace(one, message=_told(one, folder, what)) for one in errors))
    return report.accepted()


def check_urls(values: Mapping[str, object], what: str, env: Mapping[str, str] | None = None) -> None:
    """Check that the environment has the credentials of the URLs in a stored config.

    Raises:
        ConfigError: `LLF_URLS` lacks a URL with credentials; it names the key.
    """
    from llf_core.config import ConfigError, Problem

    untold = missing_url_secrets(values, {**os.environ, **(env or {})}, what)
    if untold:
        raise ConfigError(tuple(Problem("unresolved", key, values[key], told) for key, told in untold.items()))


def _told(problem: Problem, folder: RunFolder, what: str) -> str:
    place = f"{folder.config}{f' (line {problem.line})' if problem.line else ''}"
    fixes = " or ".join(f"{fix.label[:1].lower()}{fix.label[1:]}" for fix in problem.fixes)
    how = f"In {place}: {fixes}. Then {what}" if fixes else f"Fix it in {place}, then {what}"
    return f"{problem.message} This version of LLF does not accept the config of this run. {how} again."
