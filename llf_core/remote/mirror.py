"""`python -m llf_core.remote.mirror ADDRESS HOME`: keeps a local copy of the small files of a run on another host.

One background process for each mirrored run holds one connection, copies what is new, and passes the requests in the
copy's `control/` on to the run. It reconnects after a break; until then the copy says since when it has no news.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from typing import IO, TYPE_CHECKING, Any, Self

from llf_core.redaction.file_modes import make_folder
from llf_core.remote.address import parse_address
from llf_core.remote.on_host import APPENDED, BEAT_SECONDS, CHUNK, MOST_BYTES, REPLACED, SILENCE_SECONDS
from llf_core.remote.ssh import MARK, RemoteError, check_hello, decoded, encoded, problem, ssh_command
from llf_core.runs import RunFolder, read_status
from llf_core.runs.control import pending_requests, remove_request
from llf_core.runs.files import json_bytes, open_lock, open_to_append, replace_file
from llf_core.runs.folder import check_run_id, find_run, open_run
from llf_core.runs.jsonl import as_number
from llf_core.runs.status import BrokenRunError
from llf_core.untrusted import UnreadableError, open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llf_core.remote.address import Host

LOOK_SECONDS = 0.2  # between two looks at the copy's requests
RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 30.0)  # pauses before the next attempts to connect, then the last one again
GIVE_UP_SECONDS = 7 * 24 * 3600.0  # without news; opening the run again starts a new process
MOST_NOISE = 1 << 16  # bytes that a login shell may print before the first message


class LinkError(Exception):
    """The connection broke; the text says why."""


class AlreadyMirroredError(Exception):
    """Another process mirrors the run."""


def main(arguments: list[str]) -> None:
    """Detach, then mirror the run at an address.

    The first process prints, as JSON, the folder of the mirror once it has the run's status, or what is wrong.
    """
    address, home = arguments
    read_end, write_end = os.pipe()
    if os.fork() != 0:
        os.close(write_end)
        with os.fdopen(read_end, "rb") as said:
            os.write(1, said.read())
        os._exit(0)
    os.close(read_end)
    for stream in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    told = os.fdopen(write_end, "wb")

    def tell(result: Mapping[str, object]) -> None:
        if not told.closed:
            told.write(json.dumps(result).encode())
            told.close()

    host, run = parse_address(address)
    try:
        Mirror(host, run, host.mirrors(home), lambda folder: tell({"folder": str(folder.path)})).follow()
    except (RemoteError, LinkError, OSError) as error:
        tell({"problem": str(error)})
        if isinstance(error, OSError):
            raise


class Mirror:
    """The local copy of a run of another host.

    Calls `opened` with the copy's folder as soon as that has the run's status.
    """

    def __init__(self, host: Host, run: str, home: Path, opened: Callable[[RunFolder], None]) -> None:
        self._host, self._run, self._home, self._opened = host, run, home, opened
        self._folder: RunFolder | None = None
        self._lock: int | None = None
        self._heard = time.time()
        self._sent: set[str] = set()

    def follow(self) -> None:
        """Copy until the run has ended and everything is copied; reconnect after a break."""
        attempt = 0
        while True:
            before = self._heard
            try:
                with Link(self._host) as link:
                    self._copy(link)
            except AlreadyMirroredError:
                return
            except (LinkError, RemoteError) as error:
                if self._folder is None and (isinstance(error, RemoteError) or not self._open_earlier()):
                    raise
                attempt = 0 if self._heard > before else attempt + 1
                self._write_problem(str(error))
            else:
                return
            until = time.monotonic() + RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
            while time.monotonic() < until:
                time.sleep(LOOK_SECONDS)
                if self._folder is None or not self._folder.path.is_dir():  # somebody has removed the copy
                    return
            if time.time() - self._heard > GIVE_UP_SECONDS:
                return

    def _copy(self, link: Link) -> None:
        link.send({"do": "follow", "run": self._run})
        check_hello(self._host, link.first_line())
        run, _ = link.message(SILENCE_SECONDS)
        if run is None:
            raise LinkError(f"{self._host} does not answer.")
        folder = self._take_folder(str(run.get("run")))
        link.send({"have": {name: _digest(folder.path / name) for name in APPENDED}})
        self._sent.clear()
        beat = last = time.monotonic()
        while time.monotonic() - last < SILENCE_SECONDS:
            message, data = link.message(LOOK_SECONDS)
            if message is not None:
                last, self._heard = time.monotonic(), time.time()
                if message.get("end"):
                    self._finish(folder)
                    return
                self._take(folder, message, data)
            self._send_requests(folder, link)
            if time.monotonic() - beat > BEAT_SECONDS:
                beat = time.monotonic()
                link.send({})
                if not folder.path.is_dir():
                    return
        raise LinkError(f"{self._host} has sent nothing for {SILENCE_SECONDS:g} s.")

    def _take_folder(self, run: str) -> RunFolder:
        if self._folder is not None:
            return self._folder
        try:
            folder = RunFolder(self._home / "runs" / check_run_id(run))
        except ValueError as error:
            raise RemoteError(f"{self._host}: {error}") from None
        for place in (self._home.parent, self._home, self._home / "runs", folder.path, folder.control):
            make_folder(place)
        return self._hold(folder)

    def _open_earlier(self) -> bool:
        """Whether there is an earlier copy, which is shown until the host can be reached."""
        try:
            folder = open_run(find_run(self._run, self._home), self._home)
            now = read_status(folder)
            self._heard = as_number((now.mirror or {}).get("since")) or now.heartbeat
        except (ValueError, FileNotFoundError, BrokenRunError):
            return False
        try:
            self._hold(folder)
        except AlreadyMirroredError:
            return True
        self._opened(folder)
        return True

    def _hold(self, folder: RunFolder) -> RunFolder:
        self._lock = open_lock(folder.path / ".mirror.lock")
        try:
            # A process that has everything of an ended run is about to end, and the run may have been resumed.
            complete = folder.status.exists() and (read_status(folder).mirror or {}).get("complete")
            fcntl.flock(self._lock, fcntl.LOCK_EX | (0 if complete else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(self._lock)
            self._opened(folder)
            raise AlreadyMirroredError from None
        self._folder = folder
        return folder

    def _take(self, folder: RunFolder, message: Mapping[str, Any], data: bytes) -> None:
        if isinstance(message.get("status"), dict):
            self._write_status(folder, {**message["status"], "heartbeat": time.time()}, str(message.get("shown")))
            self._opened(folder)
        elif (name := message.get("file")) in APPENDED:
            _append(folder.path / str(name), int(message.get("at", 0)), data)
        elif name in REPLACED:
            replace_file(folder.path / str(name), data)
        elif (gone := message.get("gone")) in REPLACED:
            (folder.path / str(gone)).unlink(missing_ok=True)
        elif "taken" in message:
            for request in pending_requests(folder):
                if request.path.name == message["taken"]:
                    remove_request(request)

    def _send_requests(self, folder: RunFolder, link: Link) -> None:
        for request in pending_requests(folder):
            if request.type == "unreadable":
                remove_request(request)
            elif request.path.name not in self._sent:
                self._sent.add(request.path.name)
                body = {"v": 1, "id": request.id, "type": request.type, "args": request.args, "by": request.by}
                link.send({"name": request.path.name, "request": body})

    def _write_status(self, folder: RunFolder, values: Mapping[str, object], state: str, **mirror: object) -> None:
        of = {"host": str(self._host), "state": state, "since": None, "complete": False, **mirror}
        replace_file(folder.status, json_bytes({**values, "mirror": of}), temporary=".status.json.mirror")

    def _write_problem(self, why: str) -> None:
        """Write into the copy since when there is no news, and why."""
        if self._folder is None:
            return
        now = read_status(self._folder)
        state = str((now.mirror or {}).get("state", now.state))
        # The heartbeat is this process's: it goes on trying.
        self._write_status(
            self._folder, {**now.json(), "heartbeat": time.time()}, state, since=self._heard, problem=why
        )

    def _finish(self, folder: RunFolder) -> None:
        """Mark the copy as complete; requests that came after the run's end are dropped."""
        for request in pending_requests(folder):
            remove_request(request)
        now = read_status(folder)
        self._write_status(folder, now.json(), str((now.mirror or {}).get("state", now.state)), complete=True)


class Link:
    """One connection to `on_host`; closed at the end of its `with` block."""

    def __init__(self, host: Host) -> None:
        self._host, self._buffer = host, bytearray()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the link
        try:
            self._process = subprocess.Popen(  # noqa: S603 - fixed words and a checked name
                ssh_command(host), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        except FileNotFoundError:
            self._errors.close()
            raise RemoteError("The program ssh was not found. Install OpenSSH's client.") from None
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def send(self, message: Mapping[str, object]) -> None:
        """Send a message.

        Raises:
            LinkError: the connection is broken or full.
        """
        line = encoded(message)
        try:
            if os.write(self._in, line) < len(line):
                raise LinkError(f"The connection to {self._host} takes no more data.")
        except (BrokenPipeError, BlockingIOError):
            raise LinkError(self._why()) from None

    def first_line(self) -> bytes:
        """The line that `on_host` writes first, after any output of a login shell."""
        until = time.monotonic() + 2 * SILENCE_SECONDS
        while time.monotonic() < until:
            start = 0 if self._buffer.startswith(MARK) else self._buffer.find(b"\n" + MARK) + 1
            end = self._buffer.find(b"\n", start)
            if end > 0 and self._buffer.startswith(MARK, start):
                line = bytes(self._buffer[start:end])
                del self._buffer[: end + 1]
                return line
            if len(self._buffer) > MOST_NOISE:
                break
            self._receive(LOOK_SECONDS)
        raise LinkError(f"{self._host} does not answer as LLF does.")

    def message(self, seconds: float) -> tuple[dict[str, Any] | None, bytes]:
        """The next message and the bytes that follow it; None if none came within `seconds`.

        Raises:
            RemoteError: the message is malformed, too large, or a refusal.
        """
        until = time.monotonic() + seconds
        while True:
            end = self._buffer.find(b"\n")
            if end >= 0:
                message = decoded(self._host, bytes(self._buffer[:end]))
                size = message.get("bytes", 0)
                if not isinstance(size, int) or not 0 <= size <= MOST_BYTES:
                    raise RemoteError(f"{self._host} has sent a message of {size} bytes.")
                if len(self._buffer) >= end + 1 + size:
                    data = bytes(self._buffer[end + 1 : end + 1 + size])
                    del self._buffer[: end + 1 + size]
                    return message, data
            elif len(self._buffer) > MOST_BYTES:
                raise RemoteError(f"{self._host} has sent a message that is too long.")
            if (left := until - time.monotonic()) <= 0:
                return None, b""
            self._receive(left)

    def _receive(self, seconds: float) -> None:
        if select.select([self._out], [], [], seconds)[0]:
            data = os.read(self._out, CHUNK)
            if not data:
                raise LinkError(self._why())
            self._buffer += data

    def _why(self) -> str:
        try:
            code: int | None = self._process.wait(1)
        except subprocess.TimeoutExpired:
            code = None
        self._errors.seek(0)
        return problem(self._host, self._errors.read(CHUNK), code)


def _digest(path: Path) -> tuple[int, str]:
    """Size and SHA-256 (hex) of a file; `(0, "")` if it is missing."""
    try:
        with os.fdopen(open_file(path), "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return file.tell(), digest.hexdigest()
    except (FileNotFoundError, UnreadableError):
        return 0, ""


def _append(path: Path, at: int, data: bytes) -> None:
    """Append to a file of the copy at the offset `at`; 0 replaces the file."""
    if at == 0:
        replace_file(path, data)
        return
    with open_to_append(path) as file:
        if file.tell() != at:
            raise LinkError(f"{path.name} of the copy was changed.")
        file.write(data)


if __name__ == "__main__":
    main(sys.argv[1:])
