"""A run as code holds it: one small object over its folder, to be thrown away and made again at any time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from llf_core.door import is_folder
from llf_core.launch.branch import branch, replay
from llf_core.launch.detach import start_supervisor
from llf_core.launch.progress_line import Watch
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    import pandas as pd

LOOK_SECONDS = 0.2
TEARDOWN_SECONDS = 20.0


def attach(run_id: str, home: Path | str | None = None) -> Run:
    """The run of an id, live or past.

    Raises:
        ValueError: that is no id.
        FileNotFoundError: there is no such run.
    """
    return Run(open_run(run_id, home))


class Run:
    """A handle on a run.

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
        """The run's id."""
        return self.folder.id

    @property
    def state(self) -> str:
        """The state as it is now; `lost` where nothing runs and nothing was said."""
        return self.status().state

    @property
    def output(self) -> Path:
        """The folder of the result; it is there once the run has finished."""
        return self.folder.output

    def __repr__(self) -> str:
        now = self.status()
        return f"Run({self.id!r}, {now.state}, step {now.step} of {now.total})"

    def status(self) -> Status:
        """State, step, processes and reason, as shown."""
        return self._reader.status()

    def wait(
        self,
        timeout: float | None = None,
        *,
        progress: bool = True,
        interrupt: Literal["leave", "raise"] = "leave",
    ) -> Status:
        """Waits until the run ends. An interrupt ends only the waiting: the run goes on.

        Args:
            timeout: seconds to wait at most; the status then tells that it still goes.
            progress: whether to show how far it is.
            interrupt: `leave` says how to stop the run and returns; `raise` raises `KeyboardInterrupt`.

        Returns:
            The status at the end of the waiting.
        """
        until = None if timeout is None else time.monotonic() + timeout
        watch = Watch(self._reader) if progress else None
        try:
            while True:
                now = self.status()
                if watch is not None:
                    watch.show(now)
                if now.has_ended or (until is not None and time.monotonic() >= until):
                    return now
                left = LOOK_SECONDS if until is None else max(0.0, until - time.monotonic())
                time.sleep(min(LOOK_SECONDS, left))
        except KeyboardInterrupt:
            if interrupt == "raise":
                raise
            print(  # noqa: T201 - the caller's cell or terminal
                f"{self.id} goes on. Stop it with run.stop(), or in a terminal: llf runs stop {self.id}"
            )
            return self.status()
        finally:
            if watch is not None:
                watch.close()

    def stop(self, *, wait: bool = False, grace: float | None = None, by: str = "code") -> str | None:
        """Asks the run to stop after the current step, with a checkpoint.

        Args:
            wait: whether to return only when it has ended.
            grace: seconds after which a trainer that does not heed the request gets SIGTERM; else 120.
            by: who asks.

        Returns:
            The request's id; None where the run had ended before.

        Raises:
            RuntimeError: the run is lost: nothing is left that could stop.
        """
        now = self.status()
        if now.final:
            return None
        if now.state == "lost":
            raise RuntimeError(f"Nothing of {self.id} runs any more. Resume it, or leave it as it is.")
        request = send_request(self.folder, "stop", {} if grace is None else {"grace": grace}, by)
        if wait:
            self.wait(progress=False)
        return request

    def checkpoint(self, *, wait: bool = False, by: str = "code") -> str:
        """Asks for a checkpoint after the current step; see `ask`."""
        return self.ask("checkpoint", wait=wait, by=by)

    def evaluate(self, *, wait: bool = False, by: str = "code") -> str:
        """Asks for the evaluation loss after the current step; see `ask`."""
        return self.ask("evaluate", wait=wait, by=by)

    def sample(self, *, wait: bool = False, by: str = "code") -> str:
        """Asks for answers to the watched prompts after the current step; see `ask`."""
        return self.ask("sample", wait=wait, by=by)

    def set(self, *, wait: bool = False, by: str = "code", **changes: Any) -> str:
        """Changes a live run from its next step on; see `ask`. The run writes it down, and a replay does it again.

        Args:
            wait: see `ask`.
            by: who asks.
            changes: `learning_rate` (the schedule's peak), `max_steps` (where the run and its schedule end), `watch`
                (a prompt to be answered at every checkpoint and evaluation).

        Example:
            >>> run.set(learning_rate=1e-4)
        """
        return self.ask("set", check_changes(changes), wait=wait, by=by)

    def ask(self, type: str, args: Mapping[str, Any] | None = None, *, wait: bool = False, by: str = "code") -> str:  # noqa: A002 - the field's name
        """Drops a request into a live run, which takes it after the current step.

        Args:
            type: one of `llf_core.runs.control.REQUEST_TYPES`.
            args: what the type needs.
            wait: whether to return only when the trainer has answered.
            by: who asks.

        Returns:
            The request's id; with `wait` what was answered.

        Raises:
            RuntimeError: nothing of the run is going, or the trainer refused.
        """
        now = self.status()
        if now.has_ended:
            raise RuntimeError(f"{self.id} is {now.state}. Expected a run that is going.")
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
                raise RuntimeError(f"{self.id} ended before it took the request.")
            time.sleep(LOOK_SECONDS)
        return request

    def code(self) -> str:
        """A notebook cell that runs its config again; where it was told to change something, how that is done too.

        Raises:
            ConfigError: the config has errors by now.
        """
        from llf_core.rewards import cell_of

        cell = f"{cell_of(self.folder)}{run_config(self.folder).python()}"
        if not read_changes(self.folder):
            return cell
        return f"{cell}\n# What this run was told while it went on is done again by: llf.attach({self.id!r}).replay()\n"

    def replay(
        self,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        *,
        trust: bool | str = False,
    ) -> Run:
        """Starts a new run of the same config and rows, to which the same is done at the same steps.

        Args:
            env: environment variables besides this process's own.
            command: what to start in place of the trainer.
            trust: see `resume`.

        Returns:
            The new run.

        Raises:
            UntrustedCodeError: the run was made elsewhere, and code of it would run.
        """
        new = replay(self.folder, trust)
        start_supervisor(new, {**(env or {}), "LLF_HOME": str(new.home)}, command)
        return Run(new)

    def branch(
        self,
        step: int | None = None,
        *,
        name: str | None = None,
        changes: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        trust: bool | str = False,
        **more: Any,
    ) -> Run:
        """Starts a new run from a checkpoint of this run, with changed settings.

        Args:
            step: of the checkpoint; else the newest.
            name: what views call the new run.
            changes: `learning_rate` (the schedule's peak), `max_steps`, or keys of how the run is saved, evaluated,
                watched and stopped early; see `llf_core.launch.branch.KEYS`.
            env: environment variables besides this process's own.
            trust: see `resume`.
            more: changes by name.

        Returns:
            The new run.

        Raises:
            ValueError: there is no such checkpoint, nothing is left to train, or something cannot differ in a branch.
            ConfigError: the changed config has errors.
            OSError: the folder can't be written.
            RuntimeError: the supervisor does not start.
            UntrustedCodeError: the run was made elsewhere, and code of it would run.

        Example:
            >>> lower = run.branch(100, learning_rate=5e-5)
        """
        new = branch(self.folder, step, {**(changes or {}), **more}, name, trust)
        start_supervisor(new, {**(env or {}), "LLF_HOME": str(new.home)})
        return Run(new)

    def kill(self, by: str = "code") -> Status:
        """Ends the run at once; what it did since its last checkpoint is lost.

        Returns:
            The status then; that of a run which had ended before is as it was.

        Raises:
            RuntimeError: it runs on another machine, where nothing answers the request.
        """
        return kill_run(self.folder, by)

    def resume(
        self,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        *,
        rewards: Iterable[Any] | None = None,
        trust: bool | str = False,
    ) -> Run:
        """Goes on from the newest whole checkpoint, in the same folder, as the next attempt.

        Where there is no checkpoint (it failed early), it starts from the beginning.

        Args:
            env: environment variables besides this process's own.
            command: what to start in place of the trainer.
            rewards: reward functions that were mended; they take the place of those of the same names.
            trust: allows the code of a run that was made elsewhere or changed since: its reward functions, and the
                Python code of its models where it has `trust_remote_code`. A text allows only what begins with that
                hash, as a view has shown it.

        Returns:
            This run.

        Raises:
            RuntimeError: it is still going, or it has finished; the disk is full.
            ConfigError: the run has no reward function of a name, or one cannot be handed over; its config is refused
                by this version; `LLF_URLS` lacks an address that was given with a password or a key.
            UntrustedCodeError: the run was made elsewhere, and code of it would run.
        """
        now = self.status()
        if now.state == "finished":
            raise RuntimeError(f"{self.id} has finished. Start a new run to train further.")
        if not now.has_ended:
            raise RuntimeError(f"{self.id} is {now.state}. Expected a run that has ended: stop it first.")
        if command is None:
            check_stored(self.folder, "resume", env)
        how = f"run.resume(trust=True), or in a terminal: llf runs resume {self.id} --trust"
        check_run(self.folder, trust, how)
        _wait_for_teardown(now)
        checkpoints = Checkpoints(self.folder)
        latest = checkpoints.latest()
        step = 0 if latest is None else checkpoints.list()[-1]
        attempt = now.attempt + 1
        mended = [] if rewards is None else self._mend(rewards, now.attempt)
        where = None if latest is None else f"checkpoints/{latest.name}"
        more = {"rewards": mended} if mended else {}
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

    def _mend(self, rewards: Iterable[Any], attempt: int) -> list[str]:
        from llf_core.rewards import replace_code

        return replace_code(self.folder, rewards, attempt)

    def metrics(self) -> pd.DataFrame:
        """All numbers: one row a step (the index), one column a name, NaN where a step has none.

        Raises:
            ModuleNotFoundError: pandas is not installed; `pip install "llf[train]"` brings it.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                'A DataFrame needs pandas, which this environment lacks. Run pip install "llf[train]".'
            ) from None

        columns = self._reader.metrics()
        series = {name: pd.Series(columns.values(name), columns.steps(name)) for name in columns.names}
        frame = pd.DataFrame(series) if series else pd.DataFrame()
        frame.index.name = "step"
        return frame

    def events(self) -> list[dict[str, Any]]:
        """Everything that happened so far, in order."""
        return RunReader(self.folder).events()

    def log(self, lines: int = 20) -> str:
        """The last lines of stdout and stderr of the trainer."""
        return self._reader.log_tail(lines)

    def summary(self) -> dict[str, Any]:
        """What `llf runs show` shows, as JSON values; a number that is not finite is spelled out."""
        from llf_core.runs.jsonl import spell_non_finite
        from llf_core.runs.listing import read_row
        from llf_core.runs.metric_catalog import key_values

        row = read_row(self.folder).json()
        columns = self._reader.metrics()
        latest = {name: columns.last(name) for name in columns.names}
        found: dict[str, Any] = spell_non_finite(
            {
                **row,
                "counted": key_values({name: value for name, value in latest.items() if value is not None}),
                "folder": str(self.folder.path),
                "checkpoints": Checkpoints(self.folder).list(),
                "output": str(self.output) if is_folder(self.output) else None,
                "metrics": latest,
                "bytes": folder_bytes(self.folder.path),
            }
        )
        return found


def _wait_for_teardown(now: Status) -> None:
    """Lets processes that have said their last word leave: they still hold memory and files."""
    if not now.is_on_this_host:
        return
    until = time.monotonic() + TEARDOWN_SECONDS
    while any(process is not None and process.alive() for process in (now.trainer, now.supervisor_process)):
        if time.monotonic() > until:
            raise RuntimeError(f"Process {now.pid} of the last attempt has not ended yet. Kill it, then resume.")
        time.sleep(0.05)
