"""JSON Lines: one `os.write` per appended record, incremental reading.

Non-finite numbers are written as `"NaN"`, `"Infinity"` or `"-Infinity"`; `as_number` converts them back.

Validation of event fields on reading, so that an invalid field of a damaged or newer file breaks no view.

Fault injection: kills the process at a named write, so that tests prove that no data is lost.

`LLF_FAULT=<point>:<n>` ends the process with SIGKILL the n-th time (from 1) it reaches `point`. A point is named after
the file and the operation, for example `status.written` (the new file exists under its temporary name) or
`complete.renamed`. `<point>:<n>@<program>` restricts it to processes of one program, for example `supervisor_process`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.redaction import redact_nested
from llf_core.runs.formatting import strip_bidi
from llf_core.untrusted import NotPlainError, create_file, json_value, open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CHUNK = 8 << 20

MAX_LINE_BYTES = 16 << 20
"""Maximum length of a line. A record of a step with 1,000,000 examples is shorter."""

MAX_SEARCH_BYTES = 256 << 20
"""Maximum bytes searched for the end of an overlong line."""

MAX_NEW_BYTES = 32 << 20
"""Maximum bytes of new events or samples per read; of more, only the end is read."""
PIECE = 1 << 20
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def as_number(value: object) -> float | None:
    """Convert a JSON value to a float, also `"NaN"`, `"Infinity"` and `"-Infinity"`; None if it is not a number.

    Booleans and integers beyond float64 are not numbers here.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # an integer with hundreds of digits
            return None
    return NOT_FINITE.get(value) if isinstance(value, str) else None


def encode(record: Mapping[str, object]) -> bytes:
    """Encode a record as one line of valid JSON, with non-finite numbers as strings."""
    try:
        text = _dumps(dict(record))
    except ValueError:
        text = _dumps(spell_non_finite(dict(record)))
    # A lone surrogate becomes its JSON escape.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _dumps(record: object) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_scalar)


def _scalar(value: object) -> object:
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"{value!r} of type {type(value).__name__} can't be written as JSON.")
    try:
        return item()
    except (ValueError, RuntimeError):  # of numpy and torch
        raise TypeError(f"An array of shape {getattr(value, 'shape', ())} can't be written as JSON.") from None


def spell_non_finite(value: object) -> Any:
    """Copy a JSON-like value, also with scalars of numpy and torch, with non-finite numbers as strings."""
    if isinstance(value, dict):
        return {key: spell_non_finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [spell_non_finite(one) for one in value]
    if hasattr(value, "item"):
        with suppress(ValueError, RuntimeError):  # an array
            value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


class Appender:
    """An append-only file that is kept open. Several threads and processes may append to the same file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._point = path.name.partition(".")[0]
        self._descriptor: int | None = None
        self._lock = threading.Lock()  # no thread writes to a number that another one has closed

    def append(self, record: Mapping[str, object]) -> None:
        """Append one record with a single write, after terminating an incomplete last line of a killed writer.

        While another process writes a line, the file may grow page by page and look incomplete. The kernel serializes
        the writes, so at worst an empty line appears between two complete ones; readers skip it.
        """
        line = encode(record)
        with self._lock:
            if self._descriptor is None:
                self._descriptor = create_file(self._path, os.O_RDWR | os.O_APPEND)
            size = os.fstat(self._descriptor).st_size
            if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            reach(f"{self._point}.append")
            try:
                written = os.write(self._descriptor, line)
                if written < len(line):  # the disk just became full: the second write raises the error
                    written += os.write(self._descriptor, line[written:])
            except OSError as error:
                raise OSError(error.errno, os.strerror(error.errno or 0), str(self._path)) from error
        reach(f"{self._point}.appended")

    def close(self) -> None:
        """Close the file. The next append reopens it."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


def append(path: Path, record: Mapping[str, object], *, named: bool = True) -> None:
    """Append one record, without secrets (see `redact` for `named`), to a file that is not kept open."""
    appender = Appender(path)
    try:
        appender.append(redact_nested(dict(record), named=named))
    finally:
        appender.close()


def parse(line: bytes) -> dict[str, Any] | None:
    """Parse the object on a line; None if the line is incomplete or not an object."""
    try:
        value = json_value(line)
    except NotPlainError:
        return None
    return value if isinstance(value, dict) else None


def records(path: Path, most: int | None = None) -> Iterator[dict[str, Any]]:
    """Iterate over the objects in a JSON Lines file, or in its last `most` bytes; invalid lines are skipped."""
    for data, _ in Tail(path, most).pieces():
        yield from (record for record in map(parse, data.splitlines()) if record is not None)


class Tail:
    """Reads what was appended to a file since the last read. Does not keep the file open.

    Lines longer than `MAX_LINE_BYTES` are skipped, so that memory stays bounded.

    Args:
        most: maximum bytes of new data to read: if there is more, only the end is read.
    """

    HEAD = 64

    def __init__(self, path: Path, most: int | None = None) -> None:
        self._path = path
        self._most = most
        self._offset = 0
        self._inode = 0
        self._head = b""

    def pieces(self) -> Iterator[tuple[bytes, bool]]:
        """Read all new complete lines in chunks; see `read`."""
        while True:
            data, again = self.read()
            if data or again:
                yield data, again
            if not data:
                return

    def read(self, most: int = CHUNK) -> tuple[bytes, bool]:
        """Read new complete lines. A line that is still being written is left for the next call.

        Args:
            most: maximum bytes to read, exceeded only for a single longer line.

        Returns:
            The bytes, and whether the file was truncated, replaced or removed since the last read, so that all earlier
            data is invalid.
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
        # Updated last, so that a failed read can be repeated.
        self._inode, self._offset, self._head = facts.st_ino, offset + len(data), head
        return data, again


def _whole_lines(descriptor: int, offset: int, size: int, most: int) -> tuple[bytes, int]:
    """The lines within the next `most` bytes (more for a single longer line), and their start."""
    wanted = most
    while True:
        data = os.pread(descriptor, min(wanted, size - offset), offset)
        end = data.rfind(b"\n") + 1
        if end or not data or offset + len(data) >= size:
            return data[:end], offset
        if len(data) > MAX_LINE_BYTES:
            offset = _next_line(descriptor, offset + len(data), size)
        wanted *= 2


def _next_line(descriptor: int, offset: int, size: int) -> int:
    """Start of the first line after `offset`. Holes of sparse files are skipped, and the search is bounded."""
    given_up = offset + MAX_SEARCH_BYTES
    while offset < size:
        if offset > given_up:
            offset, given_up = max(offset, size - MAX_LINE_BYTES), size
        data = os.pread(descriptor, min(PIECE, size - offset), offset)
        end = data.find(b"\n") + 1
        if end or not data:
            return offset + end
        offset = _next_data(descriptor, offset + len(data), size)
    return size


def _next_data(descriptor: int, offset: int, size: int) -> int:
    """Start of the next written bytes at or after `offset`, past holes of a sparse file."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        # ENXIO: only a hole is left; other errors: the file system does not support it.
        return size if error.errno == errno.ENXIO else offset


LATEST = 2.0**37
"""Upper limit of a timestamp in Unix seconds (the year 6325)."""

LARGEST = 2**53
"""Upper limit of integers, which JavaScript represents exactly below it (`Number.MAX_SAFE_INTEGER` + 1)."""

LARGEST_ATTEMPT = 2**31
"""Upper limit of an attempt, so that arrays hold it in 32 bits."""


def is_timestamp(value: object) -> bool:
    """Whether a value is a time in Unix seconds from 0 to below `LATEST`, from which Python can make a date."""
    number = None if isinstance(value, str) else as_number(value)
    return number is not None and 0 <= number < LATEST


def is_count(value: object) -> bool:
    """Whether a value is an integer from 0 to below 2^53: a count, a step or an attempt number."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def is_finite_number(value: object) -> bool:
    """Whether a value is a finite number."""
    number = None if isinstance(value, str) else as_number(value)
    return number is not None and math.isfinite(number)


def _is(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kind)


CHECKS: dict[str, Callable[[object], bool]] = {
    "time": is_timestamp,
    "attempt": is_count,
    "step": is_count,
    "from_step": is_count,
    "parameters": is_count,
    "trainable": is_count,
    "bytes": is_finite_number,
    "largest": is_finite_number,
    "args": _is(dict),
    "changes": _is(dict),
    "values": _is(dict),
    "cancels": _is(list),
    "message": _is(str),
}
"""Validity check by field name, for all types of events."""


def valid_fields(event: Mapping[str, object]) -> dict[str, Any]:
    """Return the event without invalid fields, and its top-level strings without bidirectional controls."""
    good = ((name, value) for name, value in event.items() if name not in CHECKS or CHECKS[name](value))
    return {name: strip_bidi(value) if isinstance(value, str) else value for name, value in good}


_left: dict[str, int] = {}

if "LLF_FAULT" in os.environ:
    _where, _, _program = os.environ["LLF_FAULT"].partition("@")
    _point, _, _count = _where.partition(":")
    if _program in {"", Path(sys.argv[0]).stem}:
        _left[_point] = int(_count or 1)


def reach(point: str) -> None:
    """Mark a point between two writes. Kills the process if `LLF_FAULT` names this point; only tests set it."""
    if point in _left:
        _left[point] -= 1
        if _left[point] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
