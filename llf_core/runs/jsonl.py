"""JSON lines: appended with one `os.write` each, read again by anyone at any time.

JSON has no NaN, so a number that is not finite is written as `"NaN"`, `"Infinity"` or `"-Infinity"`, and
`as_number` turns it back where a number is expected.
"""

from __future__ import annotations

import errno
import json
import math
import os
from typing import TYPE_CHECKING, Any

from llf_core.door import NotPlainError, json_value, open_file
from llf_core.redaction import redact_nested
from llf_core.runs.fault_points import reach

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CHUNK = 8 << 20
"""Bytes that are read and parsed at a time."""
LONGEST_LINE = 16 << 20
"""Bytes of a line; a record of a step with 1,000,000 examples has less."""
FARTHEST = 256 << 20
"""Bytes that are searched for the end of a line that is longer than that."""
NEWS = 32 << 20
"""Bytes of events or samples that one look reads: of more, the last."""
PIECE = 1 << 20
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def as_number(value: Any) -> float | None:
    """The number that a JSON value stands for, or None where it stands for none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # hundreds of digits
            return None
    return NOT_FINITE.get(value) if isinstance(value, str) else None


def encode(record: Mapping[str, Any]) -> bytes:
    """A record as one line of JSON that every parser reads.

    Raises:
        TypeError: a value is neither JSON nor a scalar of numpy or torch.
    """
    try:
        text = _dumps(record)
    except ValueError:
        text = _dumps(spelled(record))
    # A lone surrogate becomes its JSON escape.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _dumps(record: Any) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_scalar)


def _scalar(value: Any) -> Any:
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"{value!r} of type {type(value).__name__} can't be written as JSON.")
    return item()


def spelled(value: Any) -> Any:
    """The same value with every number that is not finite spelled out."""
    if isinstance(value, dict):
        return {key: spelled(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


class Appender:
    """An append-only file kept open. Several processes may append to one file.

    Args:
        path: the file; made on the first append.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._point = path.name.partition(".")[0]
        self._descriptor: int | None = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Appends one record with one write; where the last line is cut, ends it first.

        A file grows page by page while another process writes a line, which then looks cut from here. The
        write waits for that one, so what comes of it is an empty line between two whole ones; readers pass over it.

        Raises:
            OSError: the disk is full or a limit on file sizes was met. Earlier records are whole.
        """
        line = encode(record)
        if self._descriptor is None:
            self._descriptor = open_file(self._path, flags=os.O_RDWR | os.O_APPEND | os.O_CREAT)
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        reach(f"{self._point}.append")
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):  # a disk that just became full: the second write says why
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(self._path)) from error
        reach(f"{self._point}.appended")

    def close(self) -> None:
        """Closes the file; the next append opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Appends one record, without secrets, to a file that is not kept open."""
    appender = Appender(path)
    try:
        appender.append(redact_nested(dict(record)))
    finally:
        appender.close()


def parse(line: bytes) -> dict[str, Any] | None:
    """The object on a line, or None where the line holds none (cut, garbage, not an object)."""
    try:
        value = json_value(line)
    except NotPlainError:
        return None
    return value if isinstance(value, dict) else None


def records(path: Path, most: int | None = None) -> Iterator[dict[str, Any]]:
    """The objects of a file of lines, in order; none where there is no file.

    Args:
        path: the file.
        most: bytes at its end that are read; unset, all.

    Raises:
        UnreadableError: it is no regular file, or the system refuses it.
    """
    for data, _ in Tail(path, most).pieces():
        yield from (record for record in map(parse, data.splitlines()) if record is not None)


class Tail:
    """Reads what was appended to a file since the last look. Holds no file open.

    A line of more than `LONGEST_LINE` is no record and is passed over, so that no file takes more memory than a piece.

    Args:
        path: the file; it may not exist yet.
        most: bytes that are read at all: of a file with more news than that, only the last so many.
    """

    HEAD = 64

    def __init__(self, path: Path, most: int | None = None) -> None:
        self._path = path
        self._most = most
        self._offset = 0
        self._inode = 0
        self._head = b""

    def pieces(self) -> Iterator[tuple[bytes, bool]]:
        """Reads all whole lines that are new, some megabytes at a time; see `read`."""
        while True:
            data, again = self.read()
            if data or again:
                yield data, again
            if not data:
                return

    def read(self, most: int = CHUNK) -> tuple[bytes, bool]:
        """Reads whole lines that are new.

        Args:
            most: bytes to read at most, more only for a line that is longer.

        Returns:
            Their bytes, and whether the file was cut or replaced since the last look, so that everything read
            before is void.

        Raises:
            UnreadableError: it is no regular file, or the system refuses it.
        """
        try:
            descriptor = open_file(self._path)
        except FileNotFoundError:
            again = self._offset > 0
            self._offset = 0
            return b"", again
        try:
            facts = os.fstat(descriptor)
            again = self._offset > 0 and (
                facts.st_ino != self._inode
                or facts.st_size < self._offset
                or os.pread(descriptor, len(self._head), 0) != self._head
            )
            offset = 0 if again else self._offset
            if self._most is not None and facts.st_size - offset > self._most:
                offset = _next_line(descriptor, facts.st_size - self._most, facts.st_size)
            data = b""
            if facts.st_size != offset:
                data, offset = _whole_lines(descriptor, offset, facts.st_size, most)
            head = os.pread(descriptor, min(self.HEAD, offset + len(data)), 0)
        finally:
            os.close(descriptor)
        # Only now: a look that failed has seen nothing.
        self._inode, self._offset, self._head = facts.st_ino, offset + len(data), head
        return data, again


def _whole_lines(descriptor: int, offset: int, size: int, most: int) -> tuple[bytes, int]:
    """The bytes from `offset` to the last newline of the next `most`, and where they begin.

    Args:
        descriptor: the file.
        offset: where to begin; it moves behind a line that is too long.
        size: of the file.
        most: bytes; more where no line ends in them.
    """
    wanted = most
    while True:
        data = os.pread(descriptor, min(wanted, size - offset), offset)
        end = data.rfind(b"\n") + 1
        if end or not data or offset + len(data) >= size:
            return data[:end], offset
        if len(data) > LONGEST_LINE:
            offset = _next_line(descriptor, offset + len(data), size)
        wanted *= 2


def _next_line(descriptor: int, offset: int, size: int) -> int:
    """Where the first line begins after `offset`: holes of a sparse file, and what has no end, are not read."""
    given_up = offset + FARTHEST
    while offset < size:
        if offset > given_up:
            offset, given_up = max(offset, size - LONGEST_LINE), size
        data = os.pread(descriptor, min(PIECE, size - offset), offset)
        end = data.find(b"\n") + 1
        if end or not data:
            return offset + end
        offset = _next_data(descriptor, offset + len(data), size)
    return size


def _next_data(descriptor: int, offset: int, size: int) -> int:
    """Where bytes that were written come next, at `offset` or behind a hole."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        # Nothing but a hole is left; elsewhere the file system cannot tell.
        return size if error.errno == errno.ENXIO else offset
