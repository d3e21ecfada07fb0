"""`control/`: requests to a live run. Each is one small file, written atomically and removed once answered.

The trainer answers them in `llf_core.training.metrics_callback`, the supervisor in `llf_core.launch.supervisor`.

Changes to a live run: which settings may change, and which recorded changes are active at a step.

A change is an event `steered{step, changes, id, cancels?}`. It takes effect after optimizer step `step`. A run that is
resumed from an earlier step, or replayed, applies it again at the same step.

Kills a run immediately, whichever of its processes are alive.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import signal
import time
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from llf_core.runs.checkpoints import recoverable_message
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.jsonl import append, as_number, is_count, records, valid_fields
from llf_core.runs.pace import last_logged_step
from llf_core.runs.process import host
from llf_core.runs.status import StatusFields, effective_status, read_status, update
from llf_core.untrusted import (
    HISTORY_BYTES,
    REQUEST_BYTES,
    NotPlainError,
    json_value,
    list_folder,
    read_bytes,
    read_object,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llf_core.runs.folder import RunFolder
    from llf_core.runs.process import ProcessId
    from llf_core.runs.status import Status

REQUEST_TYPES = ("stop", "kill", "checkpoint", "evaluate", "sample", "set")


@dataclass(frozen=True)
class Request:
    """A request to a live run.

    Attributes:
        id: 8 hex digits from `send_request`; empty if the file has none.
        type: one of `REQUEST_TYPES`, or `unreadable` for an invalid file.
        args: arguments of the type, for example `grace` in seconds for `stop`; a list or an object among them is None.
        by: who sent it, recorded in the event; at most 200 characters.
        time: Unix seconds; 0 if the file has none.
    """

    id: str
    type: str
    args: dict[str, Any] = field(default_factory=dict)
    by: str = ""
    time: float = 0.0
    path: Path = Path()


def send_request(folder: RunFolder, type: str, args: Mapping[str, object] | None = None, by: str = ("")) -> str:  # noqa: A002
    """Send a request to a live run, by a file that its trainer or supervisor reads.

    Args:
        type: one of `REQUEST_TYPES`.
        args: scalars by name, in which secrets are replaced.
        by: sender, for example `monitor`.

    Returns:
        The request's id, which the `answer` event has too.

    Raises:
        ValueError: the type is unknown, or the request has more than `REQUEST_BYTES`.
    """
    if type not in REQUEST_TYPES:
        raise ValueError(f"Unknown request {type!r}. Expected one of {', '.join(REQUEST_TYPES)}.")
    now = time.time_ns()
    request_id = secrets.token_hex(4)
    body = {"v": 1, "id": request_id, "type": type, "args": dict(args or {}), "by": by, "time": now / 1e9}
    data = json_bytes(body)
    if len(data) > REQUEST_BYTES:
        raise ValueError(f"The request has {len(data)} bytes. Expected at most {REQUEST_BYTES}.")
    with suppress(FileExistsError):
        folder.control.mkdir()
    list_folder(folder.control, folder.path)  # never write through a link; what is no folder is named
    name = f"{now}-{request_id}.json"
    replace_file(folder.control / name, data, temporary=f".{name}", point="control")
    return request_id


class Inbox:
    """Requests of a run that this process has not processed yet, except types that another process handles."""

    def __init__(self, folder: RunFolder, ignored_types: frozenset[str] = frozenset({"kill"})) -> None:
        self._folder = folder
        self._ignored_types = ignored_types
        self._seen: set[str] = set()

    def scan(self) -> list[Request]:
        """The new requests, oldest first; an invalid file is a request of the type `unreadable`."""
        try:
            names = list_folder(self._folder.control, self._folder.path)
        except OSError:  # missing or not a folder: no requests
            return []
        if not names:
            self._seen.clear()
            return []
        new = sorted(name for name in names if name not in self._seen and not name.startswith("."))
        self._seen.intersection_update(names)
        requests = []
        for name in new:
            request = read_request(self._folder.control / name)
            if request is None:
                continue
            self._seen.add(name)
            if request.type not in self._ignored_types:
                requests.append(request)
        return requests

    def done(self, request: Request) -> None:
        """Remove an answered request, so that the next attempt does not answer it again."""
        remove_request(request)


def remove_request(request: Request) -> None:
    """Remove the file of a request, if it still exists."""
    try:
        request.path.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):
        # A folder in `control/` is not a request and is left alone.
        if not request.path.is_dir():
            raise


def pending_requests(folder: RunFolder) -> list[Request]:
    """All pending requests, oldest first, including those that other processes have seen."""
    return Inbox(folder, ignored_types=frozenset()).scan()


def read_request(path: Path) -> Request | None:
    """Read a request file: `unreadable` if its content is invalid, None if the file is gone."""
    nothing = Request(id="", type="unreadable", path=path)
    try:
        value = json_value(read_bytes(path, REQUEST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, NotPlainError):
        return nothing
    if not isinstance(value, dict) or value.get("v") != 1 or value.get("type") not in REQUEST_TYPES:
        return nothing
    own, args, by, asked = (value.get(key) for key in ("id", "args", "by", "time"))
    args = args if isinstance(args, dict) else {}
    return Request(
        id=str(own)[:64] if isinstance(own, str | int) else "",
        type=value["type"],
        # Request arguments are scalars; nested values may be too deep to store.
        args={name: None if isinstance(one, dict | list) else one for name, one in args.items()},
        by=by[:200] if isinstance(by, str) else "",
        time=as_number(asked) or 0.0,
        path=path,
    )


MIN_RATE, MAX_RATE = 1e-20, 1.0  # ratio up to which a schedule can be rescaled in float64
MAX_SHOWN_INTEGER = 10**40
MAX_STEPS = 10**12  # schedules compute with it exactly


@dataclass(frozen=True)
class Change:
    """New values by name (see `check_changes`), in effect after optimizer step `step`."""

    step: int
    changes: dict[str, Any]
    id: str

    def json(self) -> dict[str, Any]:
        """The change as stored in `replay.json`; `parse_change` reads it."""
        return {"step": self.step, "changes": self.changes, "id": self.id}


def check_changes(changes: Mapping[str, object]) -> dict[str, Any]:
    """Validate changes and convert them to the types that the trainer expects.

    `learning_rate` is the peak of the schedule, `max_steps` the last step of the run and of its schedule, `watch` a
    sample prompt to add, `evaluate` true.

    Raises:
        ValueError: there are none, a name is unknown, or a value is invalid; the message is for the user.
    """
    if not changes:
        raise ValueError(f"No change was given. Expected one of {', '.join(CHECKS)}.")
    unknown = next((name for name in changes if name not in CHECKS), None)
    if unknown is not None:
        raise ValueError(f"{str(unknown)[:40]!r} cannot be changed in a live run. Expected one of {', '.join(CHECKS)}.")
    return {name: CHECKS[name](value) for name, value in changes.items()}


def _number(value: object) -> int | float | None:
    """A number as Python's own, also one of numpy; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else None


def _rate(value: object) -> float:
    number = _number(value)
    if number is None or not MIN_RATE <= number <= MAX_RATE:
        raise ValueError(f"learning_rate is {_shown(value)}. Expected a number above 0 and at most {MAX_RATE:g}.")
    return float(number)


def _step(value: object) -> int:
    number = _number(value)
    if number is None or not 1 <= number <= MAX_STEPS or number != int(number):
        raise ValueError(f"max_steps is {_shown(value)}. Expected an integer of steps from 1 to {MAX_STEPS:,}.")
    return int(number)


def _prompt(value: object) -> str:
    from llf_core.config.sections import LONGEST_PROMPT

    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_PROMPT:
        found = f"has {len(value):,} characters" if isinstance(value, str) else f"is a {type(value).__name__}"
        if isinstance(value, str) and value.isspace():
            found = "is blank"
        raise ValueError(f"The prompt {found}. Expected a string of 1 to {LONGEST_PROMPT:,} characters.")
    if any("\ud800" <= sign <= "\udfff" for sign in value):
        raise ValueError("The prompt contains a lone surrogate, which tokenizers cannot encode.")
    return value.strip()


def _true(value: object) -> bool:
    if value is not True:
        raise ValueError(f"evaluate is {_shown(value)}. Expected true.")
    return True


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= MAX_SHOWN_INTEGER:
        return "a number of more than 40 digits"
    return str(value)[:40] if value is None or isinstance(value, str | int | float) else f"a {type(value).__name__}"


CHECKS: dict[str, Callable[[object], object]] = {
    "learning_rate": _rate,
    "max_steps": _step,
    "watch": _prompt,
    "evaluate": _true,
}


def read_changes(folder: RunFolder) -> list[Change]:
    """Read the changes that define the current state of a run, by step, without cancelled ones.

    A change by the user cancels scheduled changes of the same setting. Changes that a replaying run has not reached yet
    are included, so that a branch of it repeats them too.
    """
    changes = ActiveChanges(_planned_changes(folder))
    for event in records(folder.events):
        changes.add(valid_fields(event))
    return list(changes.active())


class ActiveChanges:
    """The changes that remain active after a sequence of events. Updated incrementally."""

    def __init__(self, planned: Iterable[Change] = ()) -> None:
        self._found: dict[str, Change] = {change.id: change for change in planned}
        self._cancelled: set[str] = set()
        self._active: tuple[Change, ...] | None = None
        self._values_by_name: dict[str, tuple[list[int], list[object]]] = {}

    def add(self, event: Mapping[str, object]) -> None:
        """Process the next event of a run; events other than `steered` have no effect."""
        if event.get("type") != "steered":
            return
        self._active = None
        change = parse_change(event)
        if change is not None:
            self._found[change.id] = change
            self._cancelled.discard(change.id)
        cancels = event.get("cancels")
        self._cancelled.update(map(str, cancels) if isinstance(cancels, list) else ())

    def active(self) -> tuple[Change, ...]:
        """The active changes, by step."""
        if self._active is None:
            left = (one for one in self._found.values() if one.id not in self._cancelled)
            self._active = tuple(sorted(left, key=lambda one: one.step))
            self._values_by_name = {}
            for one in self._active:
                for name, value in one.changes.items():
                    steps, values = self._values_by_name.setdefault(name, ([], []))
                    steps.append(one.step)
                    values.append(value)
        return self._active

    def value_at(self, name: str, step: int) -> Any:
        """The last value set for a setting up to a step, in effect after it; None if it was not changed until then."""
        self.active()
        steps, values = self._values_by_name.get(name, ([], []))
        place = bisect_right(steps, step)
        return values[place - 1] if place else None


def write_replay(folder: RunFolder, changes: Iterable[Change]) -> None:
    """Schedule changes in a run that has not started, at the steps at which another run made them."""
    replace_file(folder.replay, json_bytes({"v": 1, "changes": [change.json() for change in changes]}))


def _planned_changes(folder: RunFolder) -> list[Change]:
    stored = read_object(folder.replay, HISTORY_BYTES).get("changes")
    stored = [one for one in stored if isinstance(one, dict)] if isinstance(stored, list) else []
    return [change for change in map(parse_change, stored) if change is not None]


def parse_change(event: Mapping[str, object]) -> Change | None:
    """Parse a `steered` event; None if it is invalid or of a later version."""
    step, changes = event.get("step"), event.get("changes")
    if not isinstance(step, int) or not is_count(step) or not isinstance(changes, dict):
        return None
    try:
        return Change(step, check_changes(changes), str(event.get("id", "")))
    except ValueError:
        return None


SUPERVISOR_SECONDS = 3.0  # for a live supervisor to act on a request; chosen by hand

RUN_VARIABLE = "LLF_RUN"
"""Environment variable of a trainer that holds its run's folder."""

AGENT_VARIABLE = "LLF_AGENT"
"""Environment variable of a rank that holds the process id of torchrun's agent, its parent."""
ELSEWHERE_SECONDS = 15.0  # the same over a network drive


def kill_run(folder: RunFolder, by: str = "") -> Status:
    """Kill a run through its supervisor, or directly if that is gone; returns the new status.

    Raises:
        RuntimeError: the run is on another machine where nothing answers the request, or its status names a process
            that does not belong to it.
    """
    status = read_status(folder)
    if status.final:
        return status
    elsewhere = status.mirror is not None or status.host != host()
    if elsewhere or (
        status.is_on_this_host and status.supervisor_process is not None and status.supervisor_process.alive()
    ):
        send_request(folder, "kill", by=by)
        now = _wait_for_end(folder, ELSEWHERE_SECONDS if elsewhere else SUPERVISOR_SECONDS)
        if now.final:
            return now
        if elsewhere and (status.mirror is not None or effective_status(now).state != "lost"):
            raise RuntimeError(
                f"{folder.id} runs on {status.host}, and its supervisor does not respond. "
                "End its processes on that machine."
            )
    return _end(folder, read_status(folder))


def _wait_for_end(folder: RunFolder, seconds: float) -> Status:
    until = time.monotonic() + seconds
    while not (now := read_status(folder)).final and time.monotonic() < until:
        time.sleep(0.05)
    return now


def _end(folder: RunFolder, status: Status) -> Status:
    """Kill supervisor and trainer after verifying their identity, then write the final status."""
    for process in (status.supervisor_process, status.trainer):
        if process is not None and status.is_on_this_host:
            if process.alive() and not belongs_to_run(process, folder) and process.alive():
                raise RuntimeError(
                    f"status.json of {folder.id} names process {process.pid}, which does not belong to this run, so it "
                    "was not killed. Inspect it with `ps`."
                )
            _kill_group(process)
    status = dataclasses.replace(status, step=last_logged_step(folder, status))
    reason = killed_reason(folder, status)
    end: StatusFields = {"state": "failed", "reason": reason, "exit_code": -signal.SIGKILL, "step": status.step}
    now = update(folder, of_attempt=status.attempt, **end)
    if now.reason == reason:  # else the run has written its own final status meanwhile
        word = {"type": "state", "state": now.state, "reason": reason}
        append(folder.events, {"v": 1, "time": time.time(), "attempt": status.attempt, **word})
    return now


def belongs_to_run(process: ProcessId, folder: RunFolder) -> bool:
    """Whether a process belongs to a run. The status file may be forged and name any process of the user.

    The process's arguments (supervisor and default trainer) or its variable `LLF_RUN` (any trainer) must name the run's
    folder. False for a process that has ended or that the system does not show to this user.
    """
    own = os.path.realpath(folder.path)
    try:
        there = psutil.Process(process.pid)
        if any(os.path.realpath(part) == own for part in there.cmdline() if os.path.isabs(part)):  # noqa: PTH117
            return True
        named = there.environ().get(RUN_VARIABLE)
    except psutil.Error:
        return False
    return named is not None and os.path.realpath(named) == own


def _kill_group(process: ProcessId, seconds: float = 10.0) -> None:
    """Send SIGKILL to a process, and to its group (with data loader workers) if it leads one; wait until it is gone."""
    if not process.alive():
        return
    try:
        leads = os.getpgid(process.pid) == process.pid
        (os.killpg if leads else os.kill)(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it exited meanwhile
        return
    until = time.monotonic() + seconds
    while process.alive():
        if time.monotonic() > until:
            raise TimeoutError(f"Process {process.pid} is still alive after SIGKILL. Inspect it with `ps`.")
        time.sleep(0.01)


def killed_reason(folder: RunFolder, status: Status) -> str:
    """The reason of a run that the user killed, with what can be recovered."""
    return f"Killed by the user at step {status.step} of {status.total}. {recoverable_message(folder)}"
