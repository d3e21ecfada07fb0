"""What can be said against a data set before it is read: by its entry, and by its first records where they are near."""

from __future__ import annotations

import functools
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.paths import COMPRESSED
from llf_core.data.align import decide, kind_by_entry, other_kind
from llf_core.data.build import PEEKED
from llf_core.data.errors import DataError
from llf_core.data.load import no_record, open_source
from llf_core.data.prepare import sources_of
from llf_core.data.records import LongFileError, Record, beginning, kind_of, read_file

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.data.align import Reading
    from llf_core.data.records import Row
    from llf_core.data.source import Source

WHOLE = frozenset({"json"})
"""Kinds of files that are read from end to end for their first record."""
NEAR = 4_000_000
"""Bytes of such a file, or of any that is compressed, that may be read at a glance."""

SEEN = 50_000_000
"""Bytes that are read of one, unpacked."""


@dataclass(frozen=True)
class Seen:
    """What a glance shows of a data set.

    Attributes:
        rows: its first records; none where they are far away or cost much reading.
        reading: how they become conversations; None where that is not known.
        error: what training would raise (an `OtherKindError` tells what the set holds); None where nothing is known
            against the set, and where it is not found: that is said elsewhere, in other words.
        entry: whether `dataset_info.json` says how it is read.
    """

    rows: tuple[Row, ...] = ()
    reading: Reading | None = None
    error: DataError | None = None
    entry: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in the order in which they are met."""
        return tuple(dict.fromkeys(column for row in self.rows for column in row))


def see(config: RunConfig, name: str, kind: str) -> Seen:
    """Looks at a data set as far as it costs no hub, no cloud and not much reading.

    Args:
        config: says how its sets are read.
        name: of the set, as `dataset` holds it.
        kind: what the stage learns from.
    """
    try:
        (source,) = sources_of(config, (name,))
    except (DataError, ValueError):
        return Seen()
    if source.path is not None and source.path.is_file() and not source.path.stat().st_size:
        return Seen(error=no_record(source.label, str(source.path)))
    rows = tuple(_first_rows(source))
    entry = source.formatting is not None and config.data.dataset_format is None
    try:
        if rows:
            return Seen(rows, decide(source, rows, kind), entry=entry)
        held = kind_by_entry(source, kind)
        return Seen(error=None if held in {None, kind} else other_kind(source, str(held), kind), entry=entry)
    except DataError as error:
        return Seen(rows, error=error, entry=entry)


def precheck(config: RunConfig, name: str, kind: str) -> DataError | None:
    """Why a data set cannot be learned from, as far as a glance shows it; see `Seen.error`."""
    return see(config, name, kind).error


def _first_rows(source: Source) -> list[Row]:
    """The first records of a set on this disk; none where they are far away, or cannot be read."""
    if source.path is None:
        return []
    try:
        file = open_source(source).files[0]
        if not isinstance(file, Path):
            return []
        stat = file.stat()
        costly = kind_of(file) in WHOLE or file.suffix.lower() in COMPRESSED
        return [] if costly and stat.st_size > NEAR else _rows(file, stat.st_mtime_ns, stat.st_size)
    except (DataError, OSError):
        return []


@functools.lru_cache(maxsize=64)
def _rows(file: Path, _changed: int, _size: int) -> list[Row]:
    """Kept as long as the file stays as it is: a form asks after every stroke."""
    found: list[Row] = []
    with suppress(LongFileError):
        found.extend(
            entry.row for entry in islice(read_file(beginning(file, SEEN)), PEEKED) if isinstance(entry, Record)
        )
    return found
