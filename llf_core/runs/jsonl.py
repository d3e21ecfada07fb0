"""JSON lines: appended with one `os.write` each, read again by anyone at any time.

JSON has no NaN, so a number that is not finite is written as `"NaN"`, `"Infinity"` or `"-Infinity"`, and
`as_number` turns it back where a number is expected.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

from llf_core.runs.faults import reach

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
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
    """Appends one record to a file that is not kept open."""
    appender = Appender(path)
    try:
        appender.append(record)
    finally:
        appender.close()


def parse(line: bytes) -> dict[str, Any] | None:
    """The object on a line, or None where the line holds none (cut, garbage, not an object)."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class Tail:
    """Reads what was appended to a file since the last look. Holds no file open.

    Args:
        path: the file; it may not exist yet.
    """

    HEAD = 64

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode = 0
        self._head = b""

    def read(self, most: int | None = None) -> tuple[bytes, bool]:
        """Reads the whole lines that are new.

        Args:
            most: bytes to read at most, more only for a line that is longer; unset, all there are.

        Returns:
            Their bytes, and whether the file was cut or replaced since the last look, so that everything read
            before is void.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
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
            data = b""
            if facts.st_size != offset:
                data = _whole_lines(descriptor, offset, facts.st_size - offset, most)
        finally:
            os.close(descriptor)
        # Only now: a look that failed has seen nothing.
        if offset < self.HEAD:
            self._head = (self._head[:offset] + data)[: self.HEAD]
        self._inode, self._offset = facts.st_ino, offset + len(data)
        return data, again


def _whole_lines(descriptor: int, offset: int, size: int, most: int | None) -> bytes:
    """The bytes from `offset` to the last newline of the next `most` of `size` bytes."""
    wanted = size if most is None else min(size, most)
    while True:
        data = os.pread(descriptor, wanted, offset)
        end = data.rfind(b"\n") + 1
        if end or wanted >= size or not data:
            return data[:end]
        wanted = min(size, 2 * wanted)
