"""`python -m llf_core.remote.on_host`: started by ssh on the host of a run; ends with its connection.

It reads one request as a line of JSON, and answers on stdout: a line with LLF's version, then the answer. The request
`follow` goes on: it sends what is new in a run until the run has ended, and takes requests to the run.
"""

from __future__ import annotations

import hashlib
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any

from llf_core import __version__
from llf_core.remote.ssh import encoded
from llf_core.runs import RunFolder, home, kill_run, list_runs, open_run, read_status
from llf_core.runs.control import REQUEST_TYPES
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.folder import find_run, run_ids
from llf_core.runs.jsonl import records
from llf_core.runs.listing import shown_status
from llf_core.runs.run_text import table
from llf_core.untrusted import REQUEST_BYTES, NotPlainError, UnreadableError, json_value, open_file, read_bytes
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from llf_core.runs.status import Status

    Send = Callable[[Mapping[str, object], bytes], None]

APPENDED = ("metrics.jsonl", "events.jsonl", "samples.jsonl", "examples.jsonl", "log.txt")
"""Append-only files; only new bytes are copied."""
REPLACED = (
    "config.yaml",
    "env.json",
    "meta.json",
    "output.json",
    "queue.json",
    "replay.json",
    "resolved.yaml",
    "trained.json",
)
"""Files that are replaced and copied as a whole. `status.json` is written from the host's status messages."""
MOST_BYTES = 64 << 20
"""Maximum size of a replaced file; larger ones are skipped."""
CHUNK = 1 << 20
BEAT_SECONDS = 2.0
"""Interval at which each side sends at least one message."""
SILENCE_SECONDS = 15.0
"""Silence after which the connection counts as broken; chosen by hand, as is the interval above."""
LOOK_SECONDS = 0.3  # between two looks at the run
ABANDONED_SECONDS = 60.0  # without a word from the other side
REQUEST_LINE = 2 * REQUEST_BYTES


def serve(handle: Callable[[dict[str, Any], Iterator[bytes], Send], None]) -> None:
    """Answer the request on stdin by `handle(request, lines after it, send)`; errors are sent as `refused`."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    lock = threading.Lock()

    def send(message: Mapping[str, object], data: bytes) -> None:
        with lock:
            answer.write(encoded(message) + data)
            answer.flush()

    lines = _lines(0)
    try:
        value = json_value(next(lines))
        send({"llf": __version__}, b"")
        handle(value if isinstance(value, dict) else {}, lines, send)
    except BrokenPipeError:  # the connection is gone
        return
    except (UserError, OSError, ValueError, RuntimeError, StopIteration) as error:
        send({"refused": str(error)}, b"")


def _handle(request: dict[str, Any], lines: Iterator[bytes], send: Send) -> None:
    if request.get("do") == "follow":
        _follow(str(request.get("run")), lines, send)
    else:
        send(_answer(request), b"")


def _lines(descriptor: int) -> Iterator[bytes]:
    """Lines from stdin until it ends, or until none has come for `ABANDONED_SECONDS`."""
    rest = b""
    while select.select([descriptor], [], [], ABANDONED_SECONDS)[0]:
        data = os.read(descriptor, CHUNK)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
        if len(rest) > REQUEST_LINE:
            return


def _answer(request: Mapping[str, Any]) -> Mapping[str, object]:
    match request.get("do"):
        case "list":
            offset, limit = int(request["offset"]), int(request["limit"])
            page = list_runs(home(), offset, limit, request["state"], request["query"])
            lines = table(page.rows, run_ids(), int(request["width"])) if page.rows else []
            return {"total": page.total, "runs": [row.json() for row in page.rows], "lines": lines}
        case "result":
            folder = open_run(find_run(str(request["run"])))
            return {"path": str(folder.output), "files": files_of_result(folder)}
    raise ValueError(f"Unknown request {str(request.get('do'))[:40]!r}.")


def files_of_result(folder: RunFolder) -> dict[str, tuple[int, str]]:
    """Size in bytes and SHA-256 (hex) of each file of a run's result, by its path below `output/`.

    Raises:
        ValueError: there is no result yet.
    """
    if not (folder.output / "").is_dir() or folder.output.is_symlink():
        raise ValueError(f"{folder.id} has no result yet: it is {shown_status(folder).state}.")
    return digests(folder.output)


def digests(folder: Path) -> dict[str, tuple[int, str]]:
    """Size in bytes and SHA-256 (hex) of each regular file below a folder, by its relative path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with os.fdopen(open_file(path), "rb") as file:
                digest = hashlib.file_digest(file, "sha256")
                found[str(path.relative_to(folder))] = (file.tell(), digest.hexdigest())
    return found


def _follow(name: str, lines: Iterator[bytes], send: Send) -> None:
    folder = open_run(find_run(name))
    send({"run": folder.id}, b"")
    have = json_value(next(lines))
    over = threading.Event()
    threading.Thread(target=_take_requests, args=(folder, lines, send, over), daemon=True).start()
    feed = Feed(folder, have.get("have", {}) if isinstance(have, dict) else {}, send)
    while not over.is_set():
        if feed.look():
            send({"end": True}, b"")
            return
        over.wait(LOOK_SECONDS)


class Feed:
    """Sends what is new in a run's files, compared with the sizes and hashes that the other side has."""

    def __init__(self, folder: RunFolder, have: Mapping[str, Any], send: Send) -> None:
        self._folder, self._send = folder, send
        self._offsets = {name: _agreed(folder.path / name, *have.get(name, (0, ""))) for name in APPENDED}
        self._inodes: dict[str, int] = {}
        self._small: dict[str, tuple[int, ...] | None] = {}
        self._status: tuple[Status, str] | None = None
        self._said = 0.0

    def look(self) -> bool:
        """Send what is new since the last look; True once run and supervisor have ended and everything was sent."""
        state, shown = read_status(self._folder).state, shown_status(self._folder)
        guard = shown.supervisor_process
        settled = shown.has_ended and not (shown.is_on_this_host and guard is not None and guard.alive())
        if not shown.has_ended:
            self._tell(state, shown)
        for name in REPLACED:
            self._replace(name)
        for name in APPENDED:
            self._append(name)
        if shown.has_ended:  # last, so that whoever sees the end has all that came before
            self._tell(state, shown)
        return settled

    def _tell(self, state: str, shown: Status) -> None:
        """Send the status if it has changed, else every `BEAT_SECONDS`."""
        if (shown, state) != self._status or time.monotonic() - self._said > BEAT_SECONDS:
            self._status, self._said = (shown, state), time.monotonic()
            self._send({"status": shown.json() | {"state": state}, "shown": shown.state}, b"")

    def _replace(self, name: str) -> None:
        path = self._folder.path / name
        try:
            facts = path.lstat()
            signature = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
            if self._small.get(name) == signature:
                return
            data = read_bytes(path, MOST_BYTES)
        except (FileNotFoundError, UnreadableError):
            if self._small.get(name, ()) is not None:
                self._small[name] = None
                self._send({"gone": name}, b"")
            return
        self._small[name] = signature
        self._send({"file": name, "bytes": len(data)}, data)

    def _append(self, name: str) -> None:
        try:
            descriptor = open_file(self._folder.path / name)
        except (FileNotFoundError, UnreadableError):
            return
        try:
            facts, offset = os.fstat(descriptor), self._offsets[name]
            if facts.st_ino != self._inodes.setdefault(name, facts.st_ino) or facts.st_size < offset:
                self._inodes[name], offset = facts.st_ino, 0
            while data := os.pread(descriptor, CHUNK, offset):
                self._send({"file": name, "at": offset, "bytes": len(data)}, data)
                offset += len(data)
            self._offsets[name] = offset
        finally:
            os.close(descriptor)


def _agreed(path: Path, size: int, digest: str) -> int:
    """`size` if the file begins with the bytes that the other side has, else 0."""
    try:
        with os.fdopen(open_file(path), "rb") as file:
            found, left = hashlib.sha256(), size
            while left > 0 and (data := file.read(min(left, CHUNK))):
                found.update(data)
                left -= len(data)
    except (FileNotFoundError, UnreadableError):
        return 0
    return size if left == 0 and found.hexdigest() == digest else 0


def _take_requests(folder: RunFolder, lines: Iterator[bytes], send: Send, over: threading.Event) -> None:
    try:
        for line in lines:
            value = json_value(line)
            if isinstance(value, dict) and isinstance(value.get("request"), dict):
                _take_request(folder, value["request"])
                send({"taken": str(value.get("name"))}, b"")
    except (OSError, NotPlainError):
        pass
    finally:
        over.set()


def _take_request(folder: RunFolder, request: Mapping[str, Any]) -> None:
    """Put a request into the run's `control/`, unless the run has already received it."""
    own, now = str(request.get("id")), time.time_ns()
    status = shown_status(folder)
    if status.final or request.get("type") not in REQUEST_TYPES or not own.isalnum():
        return
    if any(event.get("id") == own for event in records(folder.events) if event.get("type") in {"request", "answer"}):
        return
    guard = status.supervisor_process
    if request["type"] == "kill" and not (status.is_on_this_host and guard is not None and guard.alive()):
        threading.Thread(target=kill_run, args=(folder, str(request.get("by", ""))), daemon=True).start()
        return
    if any(path.name.endswith(f"-{own}.json") for path in folder.control.glob("*.json")):
        return
    # The clocks of two machines differ, and the age of a stop decides when its grace has passed.
    data = json_bytes({**request, "time": now / 1e9})
    name = f"{now}-{own}.json"
    replace_file(folder.control / name, data, temporary=f".{name}", point="control")


if __name__ == "__main__":
    serve(_handle)
