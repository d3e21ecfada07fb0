"""Control of a run from any process: its state, waiting for its end, and requests to its trainer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llf_core.launch.progress_line import ProgressLine
from llf_core.runs import RunReader, Status, kill_run, send_request
from llf_core.runs.change_journal import check_changes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from llf_core.runs import RunFolder

POLL_SECONDS = 0.2


class RunControl:
    """State of a run, waiting for its end, and requests to its processes; `Run` adds results and further runs."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._reader = RunReader(folder)

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
