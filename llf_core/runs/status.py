"""`status.json`: the state of a run, changed under a lock, and its effective state.

The final status of an attempt whose disk cannot store it, kept in memory until the machine restarts.

Without a final state in its folder a run is `lost`; the reason is then read from here, for the same user on the same
machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from llf_core.redaction import redact, redact_nested
from llf_core.runs.files import DISK_FULL, json_bytes, locked, replace_file
from llf_core.runs.formatting import strip_bidi
from llf_core.runs.jsonl import LARGEST, LATEST, as_number
from llf_core.runs.process import ProcessId, boot_id, host
from llf_core.runs.states import FINAL, SHOWN_STATES, STATES
from llf_core.untrusted import NotPlainError, UnreadableError, json_value, leads_to_folder, read_bytes, real_path
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.runs.folder import RunFolder

RESERVE_BYTES = 64 * 1024  # chosen by hand, as are the durations
HEARTBEAT_SECONDS = 2.0
SILENCE_SECONDS = 60.0  # maximum heartbeat age of another host before the run counts as lost
MIRROR_SECONDS = 30.0  # maximum age of a mirror's heartbeat before its process counts as ended
START_SECONDS = 30.0  # from launch to the supervisor's first status update


class BrokenRunError(UserError, ValueError):
    """A run's `status.json` cannot be read; the message has the reason."""


@dataclass(frozen=True)
class Status:
    """Content of `status.json`. Times are Unix seconds; None, or 0 where the type has no None, if unknown.

    Attributes:
        format: version of the file's format.
        state: one of `STATES`; in an effective status also `lost`, in a shown one also `queued`.
        total: planned steps.
        pid: process id of the trainer.
        started: start time of the trainer's process.
        ticks: clock ticks from boot to that start, see `ProcessId`.
        boot_id: boot of the machine in which the processes were started.
        host: name of that machine.
        heartbeat: time of the last write by trainer or supervisor.
        exit_code: exit code of the trainer, negative for a signal.
        reason: why the run is in this state, in sentences for the user.
        finding: what its curves say against the result of a finished run, in sentences.
        attempt: number of the attempt, from 1.
        supervisor: process of the supervisor, see `ProcessId.json`.
        ended: when the attempt ended.
        device: device of the trainer.
        step_seconds: duration of the last step.
        best: the best checkpoint, with its `step`.
        mirror: of a mirrored run: `host`, its `state` as shown there, `since`, when the connection broke (None while
            it is there), why (`problem`), and whether the mirror has everything (`complete`).
    """

    format: int = 1
    state: str = "created"
    step: int = 0
    total: int = 0
    pid: int | None = None
    started: float | None = None
    ticks: int | None = None
    boot_id: str | None = None
    host: str | None = None
    heartbeat: float = 0.0
    exit_code: int | None = None
    reason: str | None = None
    finding: str | None = None
    attempt: int = 1
    supervisor: dict[str, object] | None = None
    created: float = 0.0
    ended: float | None = None
    device: str | None = None
    step_seconds: float | None = None
    best: dict[str, object] | None = None
    mirror: dict[str, object] | None = None

    @property
    def final(self) -> bool:
        """Whether this attempt has a final state (`finished`, `stopped` or `failed`); `begin_attempt` changes it."""
        return self.state in FINAL

    @property
    def has_ended(self) -> bool:
        """Whether an effective status is final or `lost`, so that the run may be resumed or deleted."""
        return self.final or self.state == "lost"

    @property
    def trainer(self) -> ProcessId | None:
        """The trainer's process; None before it was started."""
        return ProcessId.read({"pid": self.pid, "started": self.started, "ticks": self.ticks})

    @property
    def supervisor_process(self) -> ProcessId | None:
        """The supervisor's process; None before it has registered itself."""
        return ProcessId.read(self.supervisor)

    @property
    def is_on_this_host(self) -> bool:
        """Whether its processes belong to this machine and boot, so that their pids are valid."""
        return self.host == host() and self.boot_id == boot_id()

    def json(self) -> dict[str, object]:
        """The status as stored in `status.json`."""
        return dataclasses.asdict(self)


class StatusFields(TypedDict, total=False):
    """Fields of `Status` that are changed, by name."""

    state: str
    step: int
    total: int
    pid: int | None
    started: float | None
    ticks: int | None
    boot_id: str | None
    host: str | None
    heartbeat: float
    exit_code: int | None
    reason: str | None
    finding: str | None
    attempt: int
    supervisor: dict[str, object] | None
    created: float
    ended: float | None
    device: str | None
    step_seconds: float | None
    best: dict[str, object] | None
    mirror: dict[str, object] | None


_FIELDS = {field.name: field for field in dataclasses.fields(Status)}


def read_status(folder: RunFolder) -> Status:
    """Read `status.json` as stored: a run without live processes is not reported as `lost`.

    Invalid fields are replaced by their defaults; unknown ones are left out.

    Raises:
        BrokenRunError: the file is missing or unreadable, or of a newer version.
    """
    try:
        value = json_value(read_bytes(folder.status))
    except FileNotFoundError:
        raise BrokenRunError(f"{folder.id} has no status.json.") from None
    except UnreadableError as error:
        raise BrokenRunError(f"{folder.id} cannot be read: {error}") from None
    except NotPlainError as error:
        raise BrokenRunError(f"The status.json of {folder.id} cannot be read: {error}.") from None
    if not isinstance(value, dict) or str(value.get("state")) not in STATES:
        raise BrokenRunError(f"The status.json of {folder.id} has no known state.")
    if value.get("format") != 1:
        found = str(value.get("format"))[:40]
        raise BrokenRunError(f"{folder.id} has format {found}. Expected 1: upgrade llf to read it.")
    return Status(**{key: _checked(key, one) for key, one in value.items() if key in _FIELDS})


def _checked(key: str, value: object) -> Any:
    kind, _, optional = str(_FIELDS[key].type).partition(" | ")
    if value is None and optional:
        return None
    if kind == "float":
        number = as_number(value)
        return _FIELDS[key].default if number is None or not abs(number) < LATEST else number
    kinds = {"int": int, "str": str, "dict[str, object]": dict}
    fits = isinstance(value, kinds[kind]) and not isinstance(value, bool)
    if isinstance(value, int):
        fits = fits and abs(value) < LARGEST
    if fits and isinstance(value, str):
        # Another program may have written it.
        return strip_bidi(redact(value) if key in {"reason", "finding", "device"} else value)
    return value if fits else _FIELDS[key].default


def effective_status(status: Status, now: float | None = None) -> Status:
    """The status with the state `lost` if it is not final and no process is left to end it.

    For a run on another machine, whose processes cannot be examined, a heartbeat older than `SILENCE_SECONDS` decides.
    Before any process has registered itself, the run counts as live for `START_SECONDS`.

    Args:
        now: Unix seconds. Default: the current time.
    """
    now = time.time() if now is None else now
    if status.mirror is not None:
        return _mirrored(status, status.mirror, now)
    if status.final:
        return status
    if status.host != host():
        lost = now - status.heartbeat > SILENCE_SECONDS
    elif status.boot_id != boot_id():
        lost = True
    else:
        known = [process for process in (status.trainer, status.supervisor_process) if process is not None]
        starts = not known and now - status.heartbeat <= START_SECONDS
        lost = not starts and not any(process.alive() for process in known)
    if not lost:
        return status
    reason = (
        f"The run's processes exited without a final status (step {status.step} of {status.total}). "
        "Resume continues from its newest checkpoint."
    )
    return dataclasses.replace(status, state="lost", reason=reason)


def _mirrored(status: Status, mirror: Mapping[str, object], now: float) -> Status:
    """The status of a mirrored run: its state as shown on its host, and since when there is no news of it."""
    state, since, why = str(mirror.get("state")), as_number(mirror.get("since")), mirror.get("problem")
    status = dataclasses.replace(status, state=state if state in SHOWN_STATES else status.state)
    if status.final or mirror.get("complete"):
        return status
    if since is None and now - status.heartbeat > MIRROR_SECONDS:
        since, why = status.heartbeat, "The process that copies it has ended. Open the run again to go on."
    if since is None or not abs(since) < LATEST:
        return status
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
    reason = f"No news from {mirror.get('host')} since {when}. {why} The run does not need this connection."
    return dataclasses.replace(status, reason=strip_bidi(redact(reason)))


def is_never_started(folder: RunFolder, status: Status) -> bool:
    """Whether an attempt ended before its disk could store any process id: its status would be `created` forever."""
    unnamed = not status.final and status.trainer is None and status.supervisor_process is None
    return unnamed and kept_reason(folder, status.attempt) is not None


def first_status(now: float) -> dict[str, object]:
    """Initial content of `status.json`, in the state `created`; live for `START_SECONDS`."""
    return Status(created=now, heartbeat=now, boot_id=boot_id(), host=host()).json()


def check_fields(changes: StatusFields) -> None:
    """Check changes of a status before they are written or kept for the next heartbeat.

    Raises:
        TypeError: a field is unknown, or a value is neither JSON nor a numpy or torch scalar.
        ValueError: `state` is not one of `STATES`.
    """
    unknown = changes.keys() - _FIELDS.keys()
    if unknown:
        raise TypeError(f"status.json does not have the field {', '.join(sorted(unknown))}.")
    if "state" in changes and changes["state"] not in STATES:
        raise ValueError(f"{changes['state']!r} is no state of a run. Expected one of {', '.join(sorted(STATES))}.")
    json_bytes(changes)


def update(folder: RunFolder, *, of_attempt: int | None = None, **changes: Unpack[StatusFields]) -> Status:
    """Change fields of `status.json` under the run's lock, since trainer, supervisor and views all write it.

    In a final status only `exit_code` and `best` can be changed; `begin_attempt` resets it.

    Args:
        of_attempt: the caller's attempt; if a later one has started, nothing is changed. None to change it in any case.
        changes: fields by name, in which secrets are replaced. A final `state` also sets `ended`.
    """
    check_fields(changes)
    with locked(folder.status_lock):
        old = read_status(folder)
        if of_attempt is not None and old.attempt != of_attempt:
            return old
        if old.final:
            changes = _editable_when_final(changes)
        elif changes.get("state") in FINAL:
            changes = {"ended": time.time(), **changes}
        new = dataclasses.replace(old, **redact_nested(changes))
        if new != old:
            _replace(folder, new)
    return new


def _editable_when_final(changes: StatusFields) -> StatusFields:
    kept: StatusFields = {}
    if "exit_code" in changes:
        kept["exit_code"] = changes["exit_code"]
    if "best" in changes:
        kept["best"] = changes["best"]
    return kept


def begin_attempt(folder: RunFolder, attempt: int, step: int | None = None) -> Status:
    """Write the first status (`created`) of the next attempt of an ended or lost run; the caller starts the processes.

    Forgets the last attempt's reason (`final_status`), and creates a missing reserve.

    Raises:
        RuntimeError: the run has not ended, or `attempt` is not the next number, for example because another process
            has started this attempt first.
    """
    with locked(folder.status_lock):
        old = read_status(folder)
        if not effective_status(old).has_ended and not is_never_started(folder, old):
            raise RuntimeError(f"{folder.id} is {old.state}. Expected a run that has ended. Stop it first.")
        if attempt != old.attempt + 1:
            raise RuntimeError(f"{folder.id} is at attempt {old.attempt}; attempt {attempt} cannot start.")
        new = Status(
            state="created",
            step=old.step if step is None else step,
            total=old.total,
            boot_id=boot_id(),
            host=host(),
            heartbeat=time.time(),
            attempt=attempt,
            created=old.created,
            device=old.device,
            step_seconds=old.step_seconds,
            best=old.best,
        )
        _replace(folder, new)
        forget_reason(folder)
        _keep_reserve(folder)
    return new


def _replace(folder: RunFolder, status: Status) -> None:
    data = json_bytes(status.json())
    temporary = f".status.json.{os.getpid()}"  # a fixed name, so that killed processes leave only one such file
    try:
        replace_file(folder.status, data, temporary=temporary)
    except OSError as error:
        if error.errno not in DISK_FULL or status.state not in FINAL or not give_back_reserve(folder):
            raise
        replace_file(folder.status, data, temporary=temporary)


def _keep_reserve(folder: RunFolder) -> None:
    """Create the run's reserve file if it is missing and there is space, see `give_back_reserve`."""
    with suppress(OSError):
        if not folder.reserve.exists():
            replace_file(folder.reserve, bytes(RESERVE_BYTES))


def give_back_reserve(folder: RunFolder) -> bool:
    """Remove the run's reserve file, so that final messages fit on a full disk; True if it existed."""
    try:
        os.unlink(folder.reserve)  # noqa: PTH108 - tells whether this call removed it
    except FileNotFoundError:
        return False
    return True


MEMORY = Path("/dev/shm")  # noqa: S108 - in a folder there that only its owner may enter


def keep_reason(folder: RunFolder, attempt: int, reason: str) -> None:
    """Keep the reason of an attempt's end outside its folder, unless one is kept already. Never raises an OSError."""
    if kept_reason(folder, attempt) is not None:
        return
    with suppress(OSError):
        place = _place()
        place.mkdir(mode=0o700, exist_ok=True)
        if _is_own(place):
            value = {"run": str(real_path(folder.path)), "attempt": attempt, "reason": reason}
            replace_file(place / _name(folder), json_bytes(value))


def kept_reason(folder: RunFolder, attempt: int) -> str | None:
    """The reason kept by `keep_reason`."""
    try:
        place = _place()
        if not _is_own(place):
            return None
        value = json_value(read_bytes(place / _name(folder)))
    except (OSError, NotPlainError):
        return None
    if not isinstance(value, dict) or value.get("run") != str(real_path(folder.path)):
        return None
    reason = value.get("reason")
    return reason if value.get("attempt") == attempt and isinstance(reason, str) else None


def forget_reason(folder: RunFolder) -> None:
    """Remove the kept reason of a run, since its next attempt begins. Never raises an OSError."""
    with suppress(OSError):
        place = _place()
        if _is_own(place):
            (place / _name(folder)).unlink(missing_ok=True)


def _place() -> Path:
    memory = MEMORY if leads_to_folder(MEMORY) else Path(tempfile.gettempdir())
    return memory / f"llf-{os.getuid()}"


def _is_own(place: Path) -> bool:
    """Whether a folder belongs to this user and nobody else can write to it."""
    facts = place.lstat()
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o077


def _name(folder: RunFolder) -> str:
    return f"{hashlib.sha256(os.fsencode(real_path(folder.path))).hexdigest()[:32]}.json"
