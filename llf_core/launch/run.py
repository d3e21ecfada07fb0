"""A handle on a run: a small object over its folder that can be recreated at any time."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from llf_core.launch.branch import branch, replay
from llf_core.launch.launchers import start_run
from llf_core.launch.launchers.torchrun import joins, wait_until_begun
from llf_core.launch.resume import resume
from llf_core.launch.send_run import resume_there
from llf_core.remote.address import is_address
from llf_core.remote.open_mirror import fetch_result, open_mirror
from llf_core.runs import Checkpoints, RunReader, Status, folder_bytes, kill_run, open_run, read_status, send_request
from llf_core.runs.config_file import read_config, run_config
from llf_core.runs.control import check_changes, read_changes
from llf_core.runs.formatting import duration, number
from llf_core.runs.pace import Pace, read_pace, remaining
from llf_core.runs.status import BrokenRunError
from llf_core.untrusted import is_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    import pandas as pd
    from rich.progress import Progress, TaskID

    from llf_core.rewards.decorator import RewardFunction
    from llf_core.runs import RunFolder

POLL_SECONDS = 0.2


def attach(run_id: str, home: Path | str | None = None) -> Run:
    """Open a run by its id, live or ended, from any process.

    Args:
        run_id: the run's id, or `ssh://host/run` of a run on another host, which is then mirrored here.
        home: `LLF_HOME`; None for the environment's.

    Raises:
        RemoteError: the other host cannot be reached, or has no such run.
    """
    return Run(open_mirror(run_id, home) if is_address(run_id) else open_run(run_id, home))


class Run:
    """A handle on a run. It holds no state of its own, so that several of them, in several processes, always agree.

    Example:
        >>> run = attach("20261124-142530-smollm2-sft-lora")
        >>> run.wait(progress=False).state
        'finished'
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._reader = RunReader(folder)

    def __repr__(self) -> str:
        try:
            now = self.status()
        except BrokenRunError:  # deleted, or damaged: a cell or a debugger shows the object all the same
            return f"Run({self.id!r}, broken)"
        return f"Run({self.id!r}, {now.state}, step {now.step} of {now.total})"

    @property
    def id(self) -> str:
        """The run's id: the name of its folder, which sorts by time."""
        return self.folder.id

    @property
    def state(self) -> str:
        """The current state, read anew each time; `lost` if no process is alive and there is no final status."""
        return self.status().state

    def status(self) -> Status:
        """Read state, step, processes and reason from the run's folder."""
        return self._reader.status()

    def wait(
        self,
        timeout: float | None = None,
        *,
        progress: bool = True,
        interrupt: Literal["leave", "raise"] = "leave",
    ) -> Status:
        """Wait until the run ends or is lost. An interrupt ends only the waiting, not the run.

        Args:
            timeout: maximum seconds to wait; the returned status may then be live. 0, a negative number and NaN check
                once. None for no limit.
            interrupt: `leave` prints how to stop the run and returns; `raise` raises `KeyboardInterrupt`.
        """
        until = None if timeout is None else time.monotonic() + timeout
        watch = ProgressLine(self._reader) if progress else None
        try:
            while True:
                now = self.status()
                if watch is not None:
                    watch.show(now)
                if now.has_ended or (until is not None and not time.monotonic() < until):  # also of NaN
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
            grace: seconds after which a trainer that does not respond gets SIGTERM. Default: 120.

        Returns:
            Id of the request; None if the run had ended before.

        Raises:
            RuntimeError: the run is lost: no process is left to stop.
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
        """Request a checkpoint after the current step; see `ask`."""
        return self.ask("checkpoint", wait=wait, by=by)

    def evaluate(self, *, wait: bool = False, by: str = "code") -> str:
        """Request an evaluation after the current step, beside the scheduled ones; see `ask`."""
        return self.ask("evaluate", wait=wait, by=by)

    def sample(self, *, wait: bool = False, by: str = "code") -> str:
        """Request completions of the watched prompts after the current step, beside the scheduled ones; see `ask`."""
        return self.ask("sample", wait=wait, by=by)

    def set(self, *, wait: bool = False, by: str = "code", **changes: object) -> str:
        """Change settings of a live run from its next step on; see `ask`. A replay repeats the change.

        Args:
            changes: `learning_rate` (peak of the schedule), `max_steps` (last step of the run and of its schedule),
                `watch` (a prompt to answer at every checkpoint and evaluation), `evaluate` (True: one evaluation now).

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
            args: arguments of the type, for example `grace` in seconds for `stop`; the trainer checks them.

        Returns:
            Id of the request; with `wait`, the message of the trainer's answer.

        Raises:
            RuntimeError: the run has ended or is lost; with `wait`, also if the trainer refuses the request or the run
                ends before it is handled.
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

    def kill(self, by: str = "code") -> Status:
        """Kill the run immediately; progress since its last checkpoint is lost.

        Returns:
            The new status, `failed` also of a lost run; unchanged if the run had a final state before.
        """
        return kill_run(self.folder, by)

    @property
    def output(self) -> Path:
        """Folder of the result, which peft and transformers load; it exists once the run has finished."""
        return self.folder.output

    def fetch(self) -> Path:
        """Copy the result of a run on another host to `output` on this machine, checked by hash.

        Raises:
            RemoteError: it is a run of this machine, it has no result yet, or its host cannot be reached.
        """
        return fetch_result(self.folder)

    def code(self) -> str:
        """A notebook cell that runs the same config again, with its live changes as a comment.

        It also defines the reward functions and metrics that the run stores.

        Raises:
            ConfigError: the config cannot be read or is no longer valid.
        """
        from llf_core.user_functions.function_source import definition_cell

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

        Args:
            env: additional environment variables.
            command: program with its arguments, to start instead of the trainer.
            trust: see `resume`.

        Raises:
            ConfigError: its config is no longer valid, or `LLF_URLS` lacks a URL with credentials.
            UntrustedCodeError: the run was created elsewhere or changed since, and its code would run.
            TooMuchCodeError: it was created elsewhere, and has more code than a person could review.
        """
        new = replay(self.folder, trust, env=env)
        start_run(new, {**(env or {}), "LLF_HOME": str(new.home)}, command)
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

        Args:
            step: step of the checkpoint; None for the newest.
            name: display name; None for the `run_name` of the changes, else this run's name with the step.
            changes: `learning_rate` (peak of the schedule), `max_steps`, or keys that control logging, saving,
                evaluation, sampling, gradient clipping and early stopping; see `llf_core.launch.branch.BRANCH_KEYS`.
            env: additional environment variables.
            trust: see `resume`.
            more: changes as keyword arguments, which take precedence over `changes`.

        Raises:
            ConfigError: the changed config has errors, or `LLF_URLS` lacks a URL with credentials.
            UntrustedCodeError: the run was created elsewhere or changed since, and its code would run.
            TooMuchCodeError: the run was created elsewhere, and has more code than a person could review.

        Example:
            >>> lower = run.branch(100, learning_rate=5e-5)
        """
        new = branch(self.folder, step, {**(changes or {}), **more}, name, trust, env=env)
        start_run(new, {**(env or {}), "LLF_HOME": str(new.home)})
        return Run(new)

    def resume(
        self,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        *,
        rewards: Iterable[RewardFunction | str] | None = None,
        trust: bool | str = False,
        num_processes: int | None = None,
    ) -> Run:
        """Continue from the newest complete checkpoint, in the same folder, as the next attempt.

        Without a checkpoint (after an early failure) it starts from the beginning. A run that was killed while it made
        predictions after training (`do_predict`) makes those that are missing.

        Args:
            env: additional environment variables.
            command: program with its arguments, to start instead of the trainer.
            rewards: fixed reward functions, which replace those of the same names.
            trust: allow the code of a run that was created elsewhere or changed since: its reward functions, and the
                Python code of its models if `trust_remote_code` is set. A string allows only code whose hash, as shown
                by a view, starts with it; at least 12 characters.
            num_processes: number of processes that go on, with the same examples in each step; None for as many as
                before.

        Raises:
            RuntimeError: it has not ended, or it has finished; another process has resumed it; a process of the last
                attempt does not exit; the disk is full; the supervisor does not start.
            ConfigError: the run has no reward function of a name, or one cannot be stored; its config is no longer
                valid; `LLF_URLS` lacks a URL with credentials.
            UntrustedCodeError: the run was created elsewhere or changed since, and its code would run.
            TooMuchCodeError: the run was created elsewhere, and has more code than a person could review.
        """
        mirror = read_status(self.folder).mirror
        if mirror is not None:
            if rewards is not None or trust:
                raise RuntimeError(f"`rewards` and `trust` need the host itself: resume {self.id} on {mirror['host']}.")
            resume_there(self.folder, str(mirror["host"]), env, command, num_processes)
            return self
        if joins(read_config(self.folder.config)):
            wait_until_begun(self.folder)
        else:
            resume(self.folder, env, rewards, trust, check_config=command is None, num_processes=num_processes)
        start_run(self.folder, {**(env or {}), "LLF_HOME": str(self.folder.home)}, command)
        return self

    def metrics(self) -> pd.DataFrame:
        """All metrics as a DataFrame `[steps, names]`, float64: indexed by ascending step, NaN where a step has none.

        A step that a later attempt repeated has the values of that attempt.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "A DataFrame needs pandas, which is not installed. Run pip install pandas."
            ) from None

        columns = self._reader.metrics()
        series = {name: pd.Series(columns.values(name), columns.steps(name)) for name in columns.names}
        frame = pd.DataFrame(series) if series else pd.DataFrame()
        frame.index.name = "step"
        return frame

    def events(self) -> list[dict[str, Any]]:
        """All events in order: states, requests and answers, checkpoints, evaluations, warnings, errors.

        Limited to the last 50,000 events or 32 MiB.
        """
        return RunReader(self.folder).events()

    def log(self, lines: int = 20) -> str:
        """The last lines of the trainer's stdout and stderr, without secrets, joined by line breaks."""
        return self._reader.log_tail(lines)

    def summary(self) -> dict[str, Any]:
        """The summary that `llf runs show --json` prints, as JSON values; non-finite numbers are strings.

        A broken run has a summary too: its state is `broken`, and `reason` says why.

        Returns:
            The attributes of `llf_core.runs.listing.Row` with `remaining`; `metrics`, the last value of each by name,
            and `counted`, the key metrics among them; `folder` and `output`, paths, the second None without a result;
            `checkpoints`, the steps of complete ones; `trained` and `servers`, the values of
            `llf_core.runs.listing.trained_json`; `bytes` of the folder.
        """
        from llf_core.runs.charts import key_values
        from llf_core.runs.jsonl import spell_non_finite
        from llf_core.runs.listing import last_model_event, read_row, trained_json

        row = read_row(self.folder).json()
        trained = trained_json(self.folder, last_model_event(self.events()))
        columns = self._reader.metrics()
        latest = {name: columns.last(name) for name in columns.names}
        found: dict[str, object] = spell_non_finite(
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


SHARE = 0.05  # of the steps between two printed lines, at least
SECONDS = 10.0  # between two printed lines, at least


class ProgressLine:
    """Shows the progress of one run on stdout."""

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        self._bar: tuple[Progress, TaskID] | None = _bar() if sys.stdout.isatty() else None
        self._state = ""
        self._step = -1
        self._printed = float("-inf")

    def show(self, status: Status) -> None:
        """Update the bar; without a terminal, print if the state changed, or after 5 % of the steps and 10 s."""
        pace = read_pace(self._reader.folder, status)
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, completed=pace.step, total=status.total or None, description=self._text(status, pace))
        elif self._is_news(status, pace.step):
            self._state, self._step, self._printed = status.state, pace.step, time.monotonic()
            print(self._text(status, pace), flush=True)  # noqa: T201 - the caller's cell or file

    def close(self) -> None:
        """Stop the progress bar; the last line stays."""
        if self._bar is not None:
            self._bar[0].stop()

    def _is_news(self, status: Status, step: int) -> bool:
        if status.state != self._state:
            return True
        moved = step - self._step >= max(1.0, SHARE * status.total)
        return moved and time.monotonic() - self._printed >= SECONDS

    def _text(self, status: Status, pace: Pace) -> str:
        parts = [status.state]
        if status.total:
            parts.append(f"step {pace.step} of {status.total}")
        loss = self._reader.metrics().last("loss")
        if loss is not None:
            parts.append(f"loss {number(loss)}")
        left = remaining(status.state, pace.step, status.total, pace.per_step)
        if left is not None:
            parts.append(f"{duration(left)} left")
        return " · ".join(parts)


def _bar() -> tuple[Progress, TaskID]:
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(BarColumn(bar_width=30), TextColumn("{task.description}", markup=False))
    bar.start()
    return bar, bar.add_task("", total=None)
