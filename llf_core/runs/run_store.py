"""A run's copy at a folder or address, from which another machine resumes it: whole states of the run, by content.

`files/<sha256>` has each content once. `state-N.json` names all files of a state with sizes and hashes and is written
last, so a state whose upload broke off does not exist. `heartbeat.json` says which machine trains the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from llf_core.config.sections import PACKAGES, place_problem, scheme_of
from llf_core.install_command import install_command
from llf_core.redaction import redact
from llf_core.runs.archive import FILES, FOLDERS, MOST_FILES, NEEDED, is_of_run
from llf_core.runs.checkpoints import Checkpoints
from llf_core.runs.folder import RUN_ID, RunFolder
from llf_core.runs.jsonl import reach
from llf_core.runs.process import ProcessId, boot_id, host
from llf_core.runs.states import FINAL
from llf_core.runs.status import SILENCE_SECONDS, read_status
from llf_core.untrusted import NotPlainError, json_value, open_file
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from llf_core.runs.status import Status

CHUNK = 1 << 20
STATE = re.compile(r"state-([0-9]{9})\.json")
SHA256 = re.compile(r"[0-9a-f]{64}")
LONGEST_STATE = 64 << 20
LEFT_OUT = frozenset({"proof.json"})
"""Files that are valid only on their own machine."""


class SyncError(UserError, RuntimeError):
    """A run cannot be copied to a place, or from it."""


class TakenOverError(SyncError):
    """Another machine has continued the run."""


class TornError(SyncError):
    """A copied file is missing, or differs from the state's hash."""


@dataclass(frozen=True)
class SyncedState:
    """A complete state of a run at a place.

    Attributes:
        step: step of its newest checkpoint; 0 without one.
        files: size in bytes and SHA-256 of each file, by its path below the run's folder.
    """

    number: int
    run: str
    attempt: int
    step: int
    host: str
    files: Mapping[str, tuple[int, str]]


@dataclass(frozen=True)
class Sent:
    """Result of sending a state: the state, and the new files and bytes."""

    state: SyncedState
    files: int
    bytes: int


@dataclass(frozen=True)
class _OpenFile:
    """The first `size` bytes of a file, which stay readable when it is removed and the same when it grows."""

    name: str
    descriptor: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        at = 0
        while at < self.size:
            data = os.pread(self.descriptor, min(CHUNK, self.size - at), at)
            if not data:
                raise SyncError(f"{self.name} became shorter while it was copied.")
            at += len(data)
            yield data


class RunStore:
    """The copy of one run at a place.

    Args:
        url: the folder or address of the run's copy itself.

    Raises:
        SyncError: the address is not valid, or its package is missing.
    """

    def __init__(self, url: str) -> None:
        self._files, self._root = open_place(url)
        self.url = url.rstrip("/") if scheme_of(url) else self._root
        self._hashes: dict[tuple[int, int, int, int], str] = {}

    def states(self) -> list[SyncedState]:
        """The complete states, newest first: all of their files exist with their sizes."""
        with _told(self.url, "cannot be read"):
            sizes = self._sizes()
            found = [self._read_state(number) for number in sorted(self._numbers(), reverse=True)]
        return [one for one in found if one and all(sizes.get(sha) == size for size, sha in one.files.values())]

    def is_begun(self) -> bool:
        """Whether any state was written here, complete or not."""
        with _told(self.url, "cannot be read"):
            return bool(self._numbers())

    def send(self, run: RunFolder, attempt: int) -> Sent:
        """Copy the current state of a run: new contents first, then the state file.

        Then states are removed except this one and the newest of an earlier checkpoint, with contents that no state
        names.

        Raises:
            TakenOverError: a later attempt has written a state.
        """
        before = self.states()
        if before and before[0].attempt > attempt:
            raise TakenOverError(
                f"{run.id} was continued on {before[0].host} (attempt {before[0].attempt}). This machine no longer "
                f"copies it to {self.url}."
            )
        with ExitStack() as stack, _told(self.url, "cannot be written"):
            step, parts = _open_files(run, stack)
            sizes, sent, count = self._sizes(), 0, 0
            self._make_folder(f"{self._root}/files")
            files: dict[str, tuple[int, str]] = {}
            for part in parts:
                sha = self._hash(part)
                files[part.name] = (part.size, sha)
                if sizes.get(sha) == part.size:
                    continue
                with self._files.open(f"{self._root}/files/{sha}", "wb") as target:
                    for data in part.chunks():
                        target.write(data)
                        reach("sync.chunk")
                sizes[sha], sent, count = part.size, sent + part.size, count + 1
                reach("sync.file")
            number = max(self._numbers(), default=0) + 1
            state = SyncedState(number, run.id, attempt, step, host(), files)
            reach("sync.files")
            self._files.pipe_file(f"{self._root}/{_state_name(number)}", _state_bytes(state))
            reach("sync.state")
        self._remove_old(state, before)
        return Sent(state, count, sent)

    def beat(self, now: Status) -> None:
        """Write the heartbeat of this machine."""
        processes = [one.json() for one in (now.supervisor_process, now.trainer) if one is not None]
        fields = {"host": host(), "boot_id": boot_id(), "state": now.state, "time": time.time(), "step": now.step}
        with _told(self.url, "cannot be written"):
            self._make_folder(self._root)
            self._files.pipe_file(
                f"{self._root}/heartbeat.json", json.dumps({"format": 1, **fields, "processes": processes}).encode()
            )

    def training_message(self) -> str:
        """Which machine trains the run now, as a sentence with what to do; empty if none does."""
        with _told(self.url, "cannot be read"):
            self._files.invalidate_cache()
            try:
                beat = json_value(self._files.cat_file(f"{self._root}/heartbeat.json"))
            except (FileNotFoundError, NotPlainError):
                return ""
        return _training_message(beat if isinstance(beat, dict) else {}, self.url)

    def fetch(self, state: SyncedState, folder: Path, progress: Callable[[int, int], object] | None = None) -> None:
        """Write the files of a state into a new folder, each compared with its size and hash.

        Raises:
            TornError: a file is missing, or its content differs.
            SyncError: the place cannot be read.
        """
        done, total = 0, sum(size for size, _ in state.files.values())
        for name, (size, sha) in state.files.items():
            path = folder.joinpath(*PurePosixPath(name).parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            digest, length = hashlib.sha256(), 0
            with path.open("xb") as target:
                for data in self._chunks(sha):
                    digest.update(data)
                    length += len(data)
                    if length > size:
                        break
                    target.write(data)
                    done += len(data)
                    if progress is not None:
                        progress(done, total)
            if (length, digest.hexdigest()) != (size, sha):
                raise TornError(f"{name} at {self.url} is not the file that was sent: its content has another hash.")

    def _make_folder(self, path: str) -> None:
        if scheme_of(self.url) in {"", "ssh"}:  # a bucket has no folders, and must not be made
            self._files.makedirs(path, exist_ok=True)

    def _chunks(self, sha: str) -> Iterator[bytes]:
        with _told(self.url, "cannot be read"):
            try:
                source = self._files.open(f"{self._root}/files/{sha}", "rb")
            except FileNotFoundError:
                raise TornError(f"files/{sha} at {self.url} is missing.") from None
            with source:
                while data := source.read(CHUNK):
                    yield data

    def _names(self, folder: str) -> dict[str, int]:
        """Size of each file of a folder by name; empty if there is no such folder."""
        self._files.invalidate_cache()
        try:
            entries = self._files.ls(folder, detail=True)
        except FileNotFoundError:
            return {}
        files = (one for one in entries if one["type"] == "file")
        return {str(one["name"]).rstrip("/").rpartition("/")[2]: int(one["size"] or 0) for one in files}

    def _sizes(self) -> dict[str, int]:
        return self._names(f"{self._root}/files")

    def _numbers(self) -> list[int]:
        return [int(match[1]) for match in map(STATE.fullmatch, self._names(self._root)) if match]

    def _read_state(self, number: int) -> SyncedState | None:
        try:
            with self._files.open(f"{self._root}/{_state_name(number)}", "rb") as source:
                value = json_value(source.read(LONGEST_STATE))
        except (FileNotFoundError, NotPlainError):  # removed meanwhile, or its write broke off
            return None
        return _parsed(value, number)

    def _hash(self, part: _OpenFile) -> str:
        about = os.fstat(part.descriptor)
        key = (about.st_dev, about.st_ino, part.size, about.st_mtime_ns)
        if key not in self._hashes:
            digest = hashlib.sha256()
            for data in part.chunks():
                digest.update(data)
            self._hashes[key] = digest.hexdigest()
        return self._hashes[key]

    def _remove_old(self, state: SyncedState, before: Sequence[SyncedState]) -> None:
        """Remove files that no kept state needs, as far as possible."""
        kept = [state, *[one for one in before if one.step < state.step][:1]]
        numbers, named = {one.number for one in kept}, {sha for one in kept for _, sha in one.files.values()}
        with suppress(SyncError), _told(self.url, "cannot be written"):
            old = [f"{self._root}/{_state_name(one)}" for one in self._numbers() if one not in numbers]
            # States first: one without its files must not seem complete.
            for path in [*old, *(f"{self._root}/files/{one}" for one in self._sizes() if one not in named)]:
                with suppress(FileNotFoundError):
                    self._files.rm_file(path)


def open_place(place: str) -> tuple[Any, str]:
    """Open a folder or address with fsspec: file system and path. No request is made.

    Raises:
        SyncError: the address is not valid, or its package is missing.
    """
    if problem := place_problem(place):
        raise SyncError(problem)
    scheme = scheme_of(place)
    try:
        import fsspec

        if scheme:
            __import__(PACKAGES[scheme])
    except ImportError:
        missing = PACKAGES.get(scheme, "fsspec")
        raise SyncError(
            f"{place} needs the package {missing}, which is not installed. Run {install_command('sync')}"
        ) from None
    with _told(place, "cannot be opened"):
        files, path = fsspec.core.url_to_fs(place if "://" in place else str(Path(place).expanduser().absolute()))
        return files, str(path).rstrip("/")


def check_writable(place: str) -> None:
    """Check that the folder of a `sync_to` exists, or that its address takes a file.

    Raises:
        SyncError: it does not, its address is not valid, or its package is missing.
    """
    files, path = open_place(place)
    if not scheme_of(place) and not Path(path).is_dir():
        raise SyncError(f"The folder {path} does not exist. Create it, or set `sync_to` to another folder.")
    probe = f"{path}/.llf-{os.getpid()}-{time.monotonic_ns():x}"
    with _told(place, "cannot be written"):
        files.pipe_file(probe, b"llf")
        files.rm_file(probe)


def runs_at(place: str) -> list[str]:
    """Ids of the runs below a place."""
    files, path = open_place(place)
    with _told(place, "cannot be read"):
        try:
            entries = files.ls(path, detail=True)
        except FileNotFoundError:
            return []
    names = [str(one["name"]).rstrip("/").rpartition("/")[2] for one in entries if one["type"] == "directory"]
    return sorted(filter(RUN_ID.fullmatch, names))


def run_place(place: str, run_id: str) -> str:
    """The place of a run's copy, below the value of its `sync_to`."""
    return f"{place.rstrip('/')}/{run_id}"


@contextmanager
def _told(place: str, what: str) -> Iterator[None]:
    """Turn errors of a file system into a `SyncError`: each file system has errors of its own."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        why = redact(str(error).strip().partition("\n")[0]) or type(error).__name__
        raise SyncError(f"{place} {what}: {why.rstrip('.')}.") from error


def _open_files(run: RunFolder, stack: ExitStack) -> tuple[int, list[_OpenFile]]:
    """Open what a resume needs; returns the step of the newest checkpoint, and the files.

    Open files stay readable, so a checkpoint may be removed while it is copied.
    """
    checkpoints = Checkpoints(run)
    while True:
        newest = checkpoints.latest()
        step = 0 if newest is None else int(newest.name.rpartition("-")[2])
        best = (read_status(run).best or {}).get("step")
        steps = {one for one in (step, best) if isinstance(one, int) and one and checkpoints.complete(one)}
        below = [run.path / name for name in sorted(FOLDERS - {"checkpoints", "exports"})]
        paths = [run.path / name for name in sorted(FILES - LEFT_OUT)]
        paths += [path for folder in (*below, *map(checkpoints.path, steps)) for path in _below(folder)]
        inner = ExitStack()
        parts = [part for part in (_open_part(path, run, inner) for path in paths) if part is not None]
        if all(map(checkpoints.complete, steps)):  # else it was removed between the listing and the opening
            stack.push(inner)
            return step, parts
        inner.close()


def _below(folder: Path) -> list[Path]:
    return sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names)


def _open_part(path: Path, run: RunFolder, stack: ExitStack) -> _OpenFile | None:
    name = path.relative_to(run.path).as_posix()
    if not is_of_run(name):
        return None
    try:
        descriptor = open_file(path, run.path)
    except OSError:  # removed meanwhile, or a link
        return None
    stack.callback(os.close, descriptor)
    size = os.fstat(descriptor).st_size
    return _OpenFile(name, descriptor, _whole_lines(descriptor, size) if name.endswith(".jsonl") else size)


def _whole_lines(descriptor: int, size: int) -> int:
    """Bytes up to the end of the last whole line of a file that grows."""
    at = size
    while at > 0:
        begin = max(0, at - CHUNK)
        end = os.pread(descriptor, at - begin, begin).rfind(b"\n") + 1
        if end:
            return begin + end
        at = begin
    return 0


def _state_name(number: int) -> str:
    return f"state-{number:09d}.json"


def _state_bytes(state: SyncedState) -> bytes:
    fields = {"format": 1, "run": state.run, "attempt": state.attempt, "step": state.step, "host": state.host}
    return json.dumps({**fields, "time": time.time(), "files": state.files}, indent=0).encode()


def _parsed(value: object, number: int) -> SyncedState | None:
    """Parse a state; None if it is invalid, or would write outside of a run's folder."""
    if not isinstance(value, dict) or value.get("format") != 1:
        return None
    run, attempt, step, files = (value.get(key) for key in ("run", "attempt", "step", "files"))
    if not isinstance(run, str) or not RUN_ID.fullmatch(run) or not isinstance(attempt, int):
        return None
    if not isinstance(step, int) or not isinstance(files, dict) or len(files) > MOST_FILES:
        return None
    if not set(NEEDED) <= files.keys():
        return None
    checked: dict[str, tuple[int, str]] = {}
    for name, facts in files.items():
        match facts:
            case [int(size), str(sha)] if size >= 0 and SHA256.fullmatch(sha) and is_of_run(name):
                checked[name] = (size, sha)
            case _:
                return None
    return SyncedState(number, run, attempt, step, str(value.get("host"))[:100], checked)


def _training_message(beat: Mapping[str, object], url: str) -> str:
    if beat.get("state") in FINAL or beat.get("state") == "lost":
        return ""
    processes = beat.get("processes")
    known = [ProcessId.read(one) for one in processes] if isinstance(processes, list) else []
    where, written = str(beat.get("host"))[:100], beat.get("time")
    age = time.time() - written if isinstance(written, int | float) else SILENCE_SECONDS
    if (beat.get("host"), beat.get("boot_id")) == (host(), boot_id()):
        if not any(one.alive() for one in known if one is not None):
            return ""
    elif age >= SILENCE_SECONDS:
        return ""
    return (
        f"{where} still trains this run (heartbeat {max(age, 0):.0f} s ago at {url}). Stop it there; if that machine "
        f"is gone, try again in {max(SILENCE_SECONDS - age, 1):.0f} s."
    )
