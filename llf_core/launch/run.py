"""A handle on a run: a small object over its folder that can be recreated at any time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from llf_core.launch.branch import branch, replay
from llf_core.launch.detach import start_supervisor
from llf_core.launch.progress_line import ProgressLine
from llf_core.launch.stored_config import check_stored
from llf_core.runs import (
    Checkpoints,
    RunFolder,
    RunReader,
    Status,
    folder_bytes,
    kill_run,
    open_run,
    send_request,
    status,
)
from llf_core.runs.change_journal import check_changes, read_changes
from llf_core.runs.config_file import run_config
from llf_core.runs.disk_errors import failure_message as disk_told
from llf_core.runs.disk_errors import is_disk_error
from llf_core.runs.final_status import keep_reason
from llf_core.runs.foreign_code import check_run
from llf_core.runs.trust import sign_run
from llf_core.runs.writer import write_event
from llf_core.untrusted import is_folder, leads_to_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    import pandas as pd

    from llf_core.rewards.signature import RewardFunction

POLL_SECONDS = 0.2
TEARDOWN_SECONDS = 20.0


def attach(run_id: str, home: Path | str | None = None) -> Run:
    """Open a run by its id, live or ended, from any process: a restarted kernel continues where it was.

    Args:
        run_id: the run's id.
        home: `LLF_HOME`; None for the environment's.

    Raises:
        ValueError: the id is invalid.
        FileNotFoundError: the run does not exist, or its folder is a link.
        HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
    """
    return Run(open_run(run_id, home))


class Run:
    """A handle on a run. It holds no state of its own, so that several of them, in several processes, always agree.

    Args:
        folder: its folder.

    Example:
        >>> run = attach("20261124-142530-smollm2-sft-lora")
        >>> run.wait().state
        'finished'
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._reader = RunReader(folder)

    @property
    def id(self) -> str:
        """The run's id: the name of its folder, which sorts by time."""
        return self.folder.id

    @property
    def state(self) -> str:
        """The current state, read anew each time; `lost` if no process is alive and there is no final status.

        Raises:
            BrokenRunError: the run's status cannot be read.
            OSError: too many files are open.
        """
        return self.status().state

    @property
    def output(self) -> Path:
        """Folder of the result, which peft and transformers load; it exists once the run has finished."""
        return self.folder.output

    def __repr__(self) -> str:
        now = self.status()
        return f"Run({self.id!r}, {now.state}, step {now.step} of {now.total})"

    def status(self) -> Status:
        """Read state, step, processes and reason, as shown by views.

        It is read from the folder at each call, since other processes change it.

        Raises:
            BrokenRunError: the run's status cannot be read.
            OSError: too many files are open.
        """
        return self._reader.status()

    def wait(
        self,
        timeout: float | None = None,
        *,
        progress: bool = True,
        interrupt: Literal["leave", "raise"] = "leave",
    ) -> Status:
        """Wait until the run ends. An interrupt only ends the waiting, not the run.

        A cell or script can then go on with the result.

        Args:
            timeout: maximum seconds to wait; the returned status may then be live. None for no limit.
            progress: whether to show progress.
            interrupt: `leave` prints how to stop the run and returns; `raise` raises `KeyboardInterrupt`.

        Returns:
            The status at the end of the waiting.

        Raises:
            KeyboardInterrupt: Ctrl-C or *Interrupt*, with `interrupt="raise"`.
            BrokenRunError: the run's status cannot be read.
            UnreadableError: with `progress`, the run's metrics cannot be read.
            OSError: too many files are open, or with `progress`, stdout cannot be written.
        """
        until = None if timeout is None else time.monotonic() + timeout
        watch = ProgressLine(self._reader) if progress else None
        try:
            while True:
                now = self.status()
                if watch is not None:
                    watch.show(now)
                if now.has_ended or (until is not None and time.monotonic() >= until):
                    return now
                left = POLL_SECONDS if until is None else max(0.0, until - time.monotonic())
                time.sleep(min(POLL_SECONDS, left))
        except KeyboardInterrupt:
            if interrupt == "raise":
                raise
            print(  # noqa: T201 - the caller's cell or terminal
                f"{self.id} is still running. Stop it with run.stop(), or in a terminal: llf runs stop {self.id}"
            )
            return self.status()
        finally:
            if watch is not None:
                watch.close()

    def stop(self, *, wait: bool = False, grace: float | None = None, by: str = "code") -> str | None:
        """Request a stop with a checkpoint after the current step, from which `resume` continues.

        A queued run leaves the queue.

        Args:
            wait: whether to wait until the run has ended.
            grace: seconds after which a trainer that does not respond gets SIGTERM; None, and a number that is negative
                or not finite, for 120.
            by: who requested it.

        Returns:
            Id of the request; None if the run had ended before.

        Raises:
            RuntimeError: the run is lost: no process is left to stop.
            BrokenRunError: the run's status cannot be read.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the request cannot be written.
        """
        now = self.status()
        if now.final:
            return None
        if now.state == "lost":
            raise RuntimeError(f"No process of {self.id} is running. Resume the run to continue it.")
        request = send_request(self.folder, "stop", {} if grace is None else {"grace": grace}, by)
        if wait:
            self.wait(progress=False)
        return request

    def checkpoint(self, *, wait: bool = False, by: str = "code") -> str:
        """Request a checkpoint after the current step, for example before a risky change; see `ask`.

        Args:
            wait: whether to wait for the trainer's answer.
            by: who requested it.

        Returns:
            Id of the request; with `wait`, the message of the trainer's answer.

        Raises:
            RuntimeError: the run has ended or is lost; with `wait`, also if the trainer refuses the request or the run
                ends before it is handled.
            BrokenRunError: the run's status cannot be read.
            UnreadableError: with `wait`, the run's events cannot be read.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the request cannot be written.
        """
        return self.ask("checkpoint", wait=wait, by=by)

    def evaluate(self, *, wait: bool = False, by: str = "code") -> str:
        """Request an evaluation after the current step, beside the scheduled ones; see `ask`.

        The validation loss of a moment is then known without waiting.

        Args:
            wait: whether to wait for the trainer's answer.
            by: who requested it.

        Returns:
            Id of the request; with `wait`, the message of the trainer's answer.

        Raises:
            RuntimeError: the run has ended or is lost; with `wait`, also if the trainer refuses the request or the run
                ends before it is handled.
            BrokenRunError: the run's status cannot be read.
            UnreadableError: with `wait`, the run's events cannot be read.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the request cannot be written.
        """
        return self.ask("evaluate", wait=wait, by=by)

    def sample(self, *, wait: bool = False, by: str = "code") -> str:
        """Request completions of the watched prompts after the current step, beside the scheduled ones; see `ask`.

        Answers show what a loss does not.

        Args:
            wait: whether to wait for the trainer's answer.
            by: who requested it.

        Returns:
            Id of the request; with `wait`, the message of the trainer's answer.

        Raises:
            RuntimeError: the run has ended or is lost; with `wait`, also if the trainer refuses the request or the run
                ends before it is handled.
            BrokenRunError: the run's status cannot be read.
            UnreadableError: with `wait`, the run's events cannot be read.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the request cannot be written.
        """
        return self.ask("sample", wait=wait, by=by)

    def set(self, *, wait: bool = False, by: str = "code", **changes: object) -> str:
        """Change settings of a live run from its next step on; see `ask`. A replay repeats the change.

        A run with a rate that is too high need not be started again.

        Args:
            wait: whether to wait for the trainer's answer.
            by: who requested it.
            changes: `learning_rate` (peak of the schedule), `max_steps` (last step of the run and of its schedule),
                `watch` (a prompt to answer at every checkpoint and evaluation), `evaluate` (True: one evaluation now).

        Returns:
            Id of the request; with `wait`, the message of the trainer's answer.

        Raises:
            ValueError: a setting cannot be changed, or its value is out of range.
            RuntimeError: the run has ended or is lost; with `wait`, also if the trainer refuses the request or the run
                ends before it is handled.
            BrokenRunError: the run's status cannot be read.
            UnreadableError: with `wait`, the run's events cannot be read.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the request cannot be written.

        Example:
            >>> run.set(learning_rate=1e-4)
        """
        return self.ask("set", check_changes(changes), wait=wait, by=by)

    def ask(
        self,
        type: str,  # noqa: A002 - the field's name
        args: Mapping[str, object] | None = None,
        *,
        wait: bool = False,
        by: str = "code",
    ) -> str:
        """Send a request to a live run, as the buttons of the monitor do.

        The trainer handles it after the current step. The supervisor handles `kill`, even while the trainer is blocked.

        Args:
            type: one of `llf_core.runs.control.REQUEST_TYPES`.
            args: arguments of the type, for example `grace` in seconds for `stop`; None for none.
            wait: whether to wait for the trainer's answer.
            by: who requested it.

        Returns:
            Id of the request; with `wait`, the message of the trainer's answer.

        Raises:
            RuntimeError: the run has ended or is lost; with `wait`, also if the trainer refuses the request or the run
                ends before it is handled.
            ValueError: the type is unknown, or the arguments are too large.
            TypeError: an argument is not JSON.
            BrokenRunError: the run's status cannot be read.
            UnreadableError: with `wait`, the run's events cannot be read.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the request cannot be written.
        """
        now = self.status()
        if now.has_ended:
            raise RuntimeError(f"{self.id} is {now.state}. Expected a live run.")
        reader = RunReader(self.folder)
        request = send_request(self.folder, type, args, by)
        while wait:
            over = self.status().has_ended
            for event in reader.events():
                if event["type"] == "answer" and event.get("id") == request:
                    if not event.get("ok"):
                        raise RuntimeError(str(event.get("message")))
                    return str(event.get("message"))
            if over:
                raise RuntimeError(f"{self.id} ended before it handled the request.")
            time.sleep(POLL_SECONDS)
        return request

    def code(self) -> str:
        """Write a notebook cell that runs the same config again, with its live changes as a comment.

        A run started in the form can then be repeated and changed in code.

        Raises:
            ConfigError: the config is no longer valid.
            ValueError: a stored reward function cannot be parsed.
            UnreadableError: a file of the run cannot be read.
            OSError: a stored reward function cannot be read.
            PluginError: two installed packages declare the same name or key.
        """
        from llf_core.user_functions.definition_cell import definition_cell

        cell = f"{definition_cell(self.folder)}{run_config(self.folder).python()}"
        if not read_changes(self.folder):
            return cell
        return (
            f"{cell}\n# To repeat the changes that were made while this run was running: "
            f"llf.attach({self.id!r}).replay()\n"
        )

    def replay(
        self,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        *,
        trust: bool | str = False,
    ) -> Run:
        """Start a new run with the same config and rows, and the same live changes at the same steps.

        The curve of a run that was changed while it ran can only be repeated in this way.

        Args:
            env: additional environment variables; None for none.
            command: program with its arguments, to start instead of the trainer; None for the trainer.
            trust: see `resume`.

        Returns:
            The new run.

        Raises:
            ConfigError: its config is no longer valid, or `LLF_URLS` lacks a URL with credentials.
            FileNotFoundError: it is a branch, and its parent no longer exists.
            ValueError: it is a branch, and the checkpoint it branched from no longer exists, its `env.json` does not
                name it, or the changes there leave no steps or cannot be made; `data/` or `code/` is a link.
            UntrustedCodeError: the run was created elsewhere, and its code would run.
            TooMuchCodeError: it was created elsewhere, and has more code than a person could review.
            UnreadableError: one of its files cannot be read.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the new folder cannot be written.
            RuntimeError: the supervisor does not start.
            PluginError: two installed packages declare the same name or key.
            BrokenRunError: the run's status cannot be read.
        """
        new = replay(self.folder, trust)
        start_supervisor(new, {**(env or {}), "LLF_HOME": str(new.home)}, command)
        return Run(new)

    def branch(
        self,
        step: int | None = None,
        *,
        name: str | None = None,
        changes: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
        trust: bool | str = False,
        **more: object,
    ) -> Run:
        """Start a new run from a checkpoint of this run, with changed settings; this run is not modified.

        Two ways to go on can then be compared from the same weights.

        Args:
            step: step of the checkpoint; None for the newest.
            name: display name of the new run; None for the `run_name` of the changes, else that of this run with the
                step.
            changes: `learning_rate` (peak of the schedule), `max_steps`, or keys that control saving, evaluation,
                sampling and early stopping; see `llf_core.launch.branch.BRANCH_KEYS`.
            env: additional environment variables; None for none.
            trust: see `resume`.
            more: changes as keyword arguments.

        Returns:
            The new run.

        Raises:
            ValueError: the checkpoint does not exist, no steps are left, or a setting cannot differ in a branch or is
                out of range; `data/` or `code/` is a link.
            ConfigError: the changed config has errors, or `LLF_URLS` lacks a URL with credentials.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the folder cannot be written.
            RuntimeError: the supervisor does not start.
            UnreadableError: a file of the run cannot be read, for example a checkpoint behind a link.
            UntrustedCodeError: the run was created elsewhere, and its code would run.
            TooMuchCodeError: the run was created elsewhere, and has more code than a person could review.
            PluginError: two installed packages declare the same name or key.
            BrokenRunError: the run's status cannot be read.

        Example:
            >>> lower = run.branch(100, learning_rate=5e-5)
        """
        new = branch(self.folder, step, {**(changes or {}), **more}, name, trust)
        start_supervisor(new, {**(env or {}), "LLF_HOME": str(new.home)})
        return Run(new)

    def kill(self, by: str = "code") -> Status:
        """Kill the run immediately, if it does not respond to a stop; progress since its last checkpoint is lost.

        Args:
            by: who requested it.

        Returns:
            The new status; unchanged if the run had ended before.

        Raises:
            RuntimeError: it runs on another machine, where nothing answers the request, or its status names a process
                that does not belong to it.
            TimeoutError: a process does not end (for example in a driver call).
            BrokenRunError: the run's status cannot be read.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: the request or the status cannot be written.
        """
        return kill_run(self.folder, by)

    def resume(
        self,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        *,
        rewards: Iterable[RewardFunction | str] | None = None,
        trust: bool | str = False,
    ) -> Run:
        """Continue from the newest complete checkpoint, in the same folder, as the next attempt.

        Without a checkpoint (after an early failure) it starts from the beginning. A run that was killed while it made
        predictions after training (`do_predict`) makes those that are missing.

        Args:
            env: additional environment variables; None for none.
            command: program with its arguments, to start instead of the trainer; None for the trainer.
            rewards: fixed reward functions, which replace those of the same names; None to keep all.
            trust: allow the code of a run that was created elsewhere or changed since: its reward functions, and the
                Python code of its models if `trust_remote_code` is set. A string allows only code whose hash starts
                with it, as shown by a view.

        Returns:
            This run.

        Raises:
            RuntimeError: it has not ended, or it has finished; a process of the last attempt does not exit; the disk is
                full; the supervisor does not start.
            ConfigError: the run has no reward function of a name, or one cannot be stored; its config is no longer
                valid; `LLF_URLS` lacks a URL with credentials.
            TypeError: a reward function is not a function, or has no parameter for the answer.
            ValueError: two reward functions have the same name.
            UntrustedCodeError: the run was created elsewhere, and its code would run.
            TooMuchCodeError: the run was created elsewhere, and has more code than a person could review.
            BrokenRunError: the run's status cannot be read.
            ModeError: `LLF_HOME_MODE` is not a mode.
            OSError: a file of the run cannot be read or cannot be written.
            PluginError: two installed packages declare the same name or key.
        """
        now = self.status()
        if now.state == "finished":
            raise RuntimeError(f"{self.id} has finished. Start a new run to train further.")
        if not now.has_ended:
            raise RuntimeError(f"{self.id} is {now.state}. Expected a run that has ended. Stop it first.")
        if command is None:
            check_stored(self.folder, "resume", env)
        how = f"run.resume(trust=True), or in a terminal: llf runs resume {self.id} --trust"
        check_run(self.folder, trust, how)
        _wait_for_teardown(now)
        checkpoints = Checkpoints(self.folder)
        latest = checkpoints.latest()
        step = 0 if latest is None else checkpoints.list()[-1]
        if leads_to_file(self.folder.trained):  # only predictions are left
            step = max(step, now.step)
        attempt = now.attempt + 1
        replaced = [] if rewards is None else self._replace_rewards(rewards, now.attempt)
        where = None if latest is None else f"checkpoints/{latest.name}"
        more = {"rewards": replaced} if replaced else {}
        try:
            status.begin_attempt(self.folder, attempt, step=step)
            write_event(self.folder, attempt, "resumed", from_step=step, checkpoint=where, **more)
            sign_run(self.folder)
        except OSError as error:
            if not is_disk_error(error):
                raise
            reason = " ".join(disk_told(self.folder, error))
            try:
                status.update(self.folder, of_attempt=attempt, state="failed", reason=reason)
            except OSError:
                keep_reason(self.folder, attempt, reason)
            raise RuntimeError(reason) from error
        start_supervisor(self.folder, {**(env or {}), "LLF_HOME": str(self.folder.home)}, command)
        return self

    def _replace_rewards(self, rewards: Iterable[RewardFunction | str], attempt: int) -> list[str]:
        from llf_core.rewards import replace_code

        return replace_code(self.folder, rewards, attempt)

    def metrics(self) -> pd.DataFrame:
        """All metrics as a DataFrame: one row per step (the index), one column per name, NaN where a step has none.

        Of a step that a later attempt has repeated, the values of that attempt. For tables and plots beyond those of
        the monitor.

        Raises:
            ModuleNotFoundError: pandas is not installed; `pip install "llf[train]"` installs it.
            UnreadableError: the metrics file cannot be read.
            OSError: too many files are open.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                'A DataFrame needs pandas, which is not installed. Run pip install "llf[train]".'
            ) from None

        columns = self._reader.metrics()
        series = {name: pd.Series(columns.values(name), columns.steps(name)) for name in columns.names}
        frame = pd.DataFrame(series) if series else pd.DataFrame()
        frame.index.name = "step"
        return frame

    def events(self) -> list[dict[str, Any]]:
        """All events so far, in order: states, requests and answers, checkpoints, evaluations, warnings, errors.

        They tell what happened to a run, for views and for code.

        Raises:
            UnreadableError: the events file cannot be read.
            OSError: too many files are open.
        """
        return RunReader(self.folder).events()

    def log(self, lines: int = 20) -> str:
        """The last lines of the trainer's stdout and stderr, without secrets: where unexpected errors are explained.

        Args:
            lines: maximum number of lines.

        Raises:
            UnreadableError: the log cannot be read.
            OSError: too many files are open.
        """
        return self._reader.log_tail(lines)

    def summary(self) -> dict[str, Any]:
        """The summary that `llf runs show --json` prints, as JSON values; non-finite numbers are strings.

        A broken run has a summary too: its state is `broken`, and `reason` says why.

        Returns:
            The attributes of `llf_core.runs.listing.Row` with `remaining`; `metrics`, the last value of each by name,
            and `counted`, the key metrics among them; `folder` and `output`, paths, the second None without a result;
            `checkpoints`, the steps of complete ones; `trained` and `servers`, the values of
            `llf_core.runs.trained.trained_json`; `bytes` of the folder.

        Raises:
            UnreadableError: the metrics or the events cannot be read.
            OSError: too many files are open.
        """
        from llf_core.runs.jsonl import spell_non_finite
        from llf_core.runs.listing import read_row
        from llf_core.runs.metric_catalog import key_values
        from llf_core.runs.trained import last_model_event, trained_json

        row = read_row(self.folder).json()
        trained = trained_json(self.folder, last_model_event(self.events()))
        columns = self._reader.metrics()
        latest = {name: columns.last(name) for name in columns.names}
        found: dict[str, Any] = spell_non_finite(
            {
                **row,
                "counted": key_values({name: value for name, value in latest.items() if value is not None}),
                "folder": str(self.folder.path),
                "checkpoints": Checkpoints(self.folder).list(),
                "output": str(self.output) if is_folder(self.output) else None,
                "trained": trained["grid"],
                "servers": trained["servers"],
                "metrics": latest,
                "bytes": folder_bytes(self.folder.path),
            }
        )
        return found


def _wait_for_teardown(now: Status) -> None:
    """Wait for ended processes to exit, since they still hold memory and files."""
    if not now.is_on_this_host:
        return
    until = time.monotonic() + TEARDOWN_SECONDS
    while any(process is not None and process.alive() for process in (now.trainer, now.supervisor_process)):
        if time.monotonic() > until:
            raise RuntimeError(f"Process {now.pid} of the last attempt is still running. Kill it, then resume.")
        time.sleep(0.05)
