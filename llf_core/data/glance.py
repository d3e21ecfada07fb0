"""What can be said against a data set before it is read: by its entry, and by its first records where they are near."""

from __future__ import annotations

import functools
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.paths import COMPRESSED
from llf_core.data.align import decide, kind_by_entry, other_kind
from llf_core.data.build import PEEKED
from llf_core.data.errors import DataError
from llf_core.data.load import open_source
from llf_core.data.prepare import sources_of
from llf_core.data.records import Record, kind_of, read_file

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.data.records import Row
    from llf_core.data.sources import Source

WHOLE = frozenset({"json"})
"""Kinds of files that are read from end to end for their first record."""
NEAR = 4_000_000
"""Bytes of such a file, or of any that is compressed, that may be read at a glance."""


def glance(config: RunConfig, name: str, kind: str) -> DataError | None:
    """Why a data set cannot be learned from, as far as that is known without a hub, a cloud or much reading.

    Args:
        config: says how its sets are read.
        name: of the set, as `dataset` holds it.
        kind: what the stage learns from.

    Returns:
        What training would raise (an `OtherKindError` tells what the set holds); None where nothing is known against
        it, and where it is not found: that is said elsewhere, in other words.
    """
    try:
        (source,) = sources_of(config, (name,))
    except (DataError, ValueError):
        return None
    try:
        rows = _first_rows(source)
        if rows:
            decide(source, rows, kind)
            return None
        held = kind_by_entry(source, kind)
        return None if held in {None, kind} else other_kind(source, str(held), kind)
    except DataError as error:
        return error


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
    return [entry.row for entry in islice(read_file(file), PEEKED) if isinstance(entry, Record)]
