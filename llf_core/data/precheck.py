"""Quick check of a data set before it is read: its `dataset_info.json` entry, and first records if it is local."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.paths import COMPRESSED
from llf_core.data.align import PEEK_ROWS, decide, kind_by_entry, other_kind
from llf_core.data.data_file import LongFileError, file_type, limit_file
from llf_core.data.errors import DataError, EntryError
from llf_core.data.load import no_records_error, open_source
from llf_core.data.read_file import read_file, record_unit
from llf_core.data.records import BrokenLine, Record
from llf_core.data.sources import sources_of

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.config.declaration import DataKind
    from llf_core.data.align import Reading
    from llf_core.data.records import RecordOrBroken, Row
    from llf_core.data.source import Source

WHOLE_FILE_TYPES = frozenset({"json"})
"""File types that must be read completely for their first record."""
MAX_FILE_BYTES = 4_000_000
"""Maximum size of such a file, or of a compressed file, for the quick check."""

MAX_READ_BYTES = 50_000_000
"""Maximum number of decompressed bytes to read."""


@dataclass(frozen=True)
class QuickCheck:
    """Result of a quick check.

    Attributes:
        rows: first records; empty if the data set is remote or slow to read.
        error: the error that training would raise. A missing data set is no error here; it is reported elsewhere.
        entry: whether `dataset_info.json` describes how it is read.
    """

    rows: tuple[Row, ...] = ()
    reading: Reading | None = None
    error: DataError | None = None
    entry: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names, in order of occurrence, for a form's choice of columns; empty if no row was read."""
        return tuple(dict.fromkeys(column for row in self.rows for column in row))


def quick_check(config: RunConfig, name: str, kind: DataKind) -> QuickCheck:
    """Check a data set for a form, without reading much. Downloads only `dataset_info.json` of a hub (`REMOTE:`)."""
    try:
        (source,) = sources_of(config, (name,))
    except EntryError as error:
        return QuickCheck(error=error)
    except (DataError, ValueError):
        return QuickCheck()
    entry = source.formatting is not None and config.data.dataset_format is None
    rows: tuple[Row, ...] = ()
    try:
        rows = tuple(_first_rows(source))
        if rows:
            return QuickCheck(rows, decide(source, rows, kind), entry=entry)
        held = kind_by_entry(source, kind)
        return QuickCheck(error=None if held is None or held == kind else other_kind(source, held, kind), entry=entry)
    except DataError as error:
        return QuickCheck(rows, error=error, entry=entry)


def precheck(config: RunConfig, name: str, kind: DataKind) -> DataError | None:
    """The error of a quick check that training would raise; None if no problem is known."""
    return quick_check(config, name, kind).error


def _first_rows(source: Source) -> list[Row]:
    """First records of a local data set; empty if it is remote, slow to read or not permitted to be read."""
    if source.path is None:
        return []
    try:
        files = open_source(source).files
        local = [file for file in files if isinstance(file, Path)]
        if not local:
            return []
        file = next((one for one in local if one.stat().st_size), local[0])  # an empty one holds no record
        stat = file.stat()
        costly = file_type(file) in WHOLE_FILE_TYPES or file.suffix.lower() in COMPRESSED
        if costly and stat.st_size > MAX_FILE_BYTES:
            return []
        entries, whole = _entries(file, stat.st_mtime_ns, stat.st_size)
        rows = [entry.row for entry in entries if isinstance(entry, Record)]
        if rows or not whole or len(files) != 1:
            return rows
        unit = record_unit((file,))
    except OSError:
        return []
    flaws = [entry for entry in entries if isinstance(entry, BrokenLine)]
    raise no_records_error(source.label, str(file), flaws, unit)


@functools.lru_cache(maxsize=64)
def _entries(file: Path, _changed: int, size: int) -> tuple[list[RecordOrBroken], bool]:
    """First entries of a file, and whether these are all; cached until the file changes."""
    found: list[RecordOrBroken] = []
    if not size:
        return found, True
    try:
        found.extend(islice(read_file(limit_file(file, MAX_READ_BYTES)), PEEK_ROWS))
    except LongFileError:
        return found, False
    return found, len(found) < PEEK_ROWS
