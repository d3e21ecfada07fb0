"""Lengths of examples from the text of their records, before a tokenizer has read them."""

from __future__ import annotations

import functools
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llf_core.data.align import decide, wanted_kind
from llf_core.data.errors import BadExample, DataError
from llf_core.data.load import open_source
from llf_core.data.prepare import sources_of
from llf_core.data.records import LongFileError, Record, file_type, limit_file, read_file, row_count
from llf_core.estimate.example_lengths import ExampleLengths, of_lengths

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.config.declaration import DataKind
    from llf_core.data.align import Reading
    from llf_core.data.formats.conversation import Conversation
    from llf_core.data.records import Row
    from llf_core.data.source import Source

BYTES_PER_TOKEN = 4.3
"""Bytes of UTF-8 that a token of a usual tokenizer stands for, in English; other scripts have more bytes a letter."""
TOKENS_PER_MESSAGE = 5
"""Tokens that a chat template puts around a message."""
TOKENS_PER_CONVERSATION = 20
"""Tokens of the system prompt that many templates add to a conversation without one."""
MOST_RECORDS = 2000
MOST_BYTES = 4_000_000
"""Of a file, as many records or bytes are read; the number of further ones follows from its size."""
DECIDED_ROWS = 100


@dataclass(frozen=True)
class _Texts:
    """Lengths of some of a data set's conversations.

    Attributes:
        tokens: of each sequence.
        records: number of records that were read.
        total: number of records that the files have, estimated if they were not read to their end.
        whole: whether all were read.
    """

    tokens: tuple[int, ...]
    records: int
    total: float
    whole: bool


def lengths_from_text(config: RunConfig) -> ExampleLengths | None:
    """Estimate the lengths of a config's training examples from the text of its first records.

    A forecast needs them while a form is filled in, when a tokenizer would take seconds to load. Nothing is downloaded,
    and each file is read once, at most 4 MB of it.

    Args:
        config: the run's config.

    Returns:
        Lengths before truncation; None if no data set is on this machine, or none can be read.

    Raises:
        OSError: `dataset_info.json` cannot be read.
        PluginError: the implementation of a format cannot be imported, or two installed packages declare the same
            plug-in.
    """
    found: list[_Texts] = []
    names = config.data.dataset or ()
    for name in names:
        try:
            (source,) = sources_of(config, (name,))
            texts = _of_source(source, wanted_kind(config))
        except (DataError, ValueError):  # reported by the checks of names and data
            continue
        if texts is not None and texts.tokens:
            found.append(texts)
    if not found:
        return None
    tokens = np.concatenate([np.array(one.tokens, np.int64) for one in found])
    total = sum(_drawn(one, config) for one in found)
    read = sum(one.records for one in found)
    which = f"all {read:,} records" if all(one.whole for one in found) else f"the first {read:,} records"
    missing = "" if len(found) == len(names) else " of the data sets that are on this machine"
    basis = f"Lengths of the examples are estimated from the text of {which}{missing}."
    return of_lengths(tokens, max(1, round(total)), basis=basis, exact=False)


def _drawn(texts: _Texts, config: RunConfig) -> float:
    """Number of examples that a data set gives, at most `max_samples`."""
    most = config.data.max_samples
    return texts.total if most is None else min(texts.total, most)


def _of_source(source: Source, kind: DataKind) -> _Texts | None:
    """Lengths of a data set's first records; None if it is remote.

    Raises:
        DataError: its records are of another kind or in no known format.
    """
    if source.path is None:
        return None
    files = [file for file in open_source(source).files if isinstance(file, Path)]
    try:
        state = tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    except OSError:
        return None
    return _read(source, kind, state) if state else None


@functools.lru_cache(maxsize=32)
def _read(source: Source, kind: DataKind, state: tuple[tuple[Path, int, int], ...]) -> _Texts:
    """Cached until a file changes, since a form asks after every key press.

    Raises:
        DataError: the records are of another kind or in no known format.
    """
    rows: list[Row] = []
    read = held = 0
    whole = True
    for file, _, size in state:
        held += size
        if len(rows) >= MOST_RECORDS:
            whole = False
            continue
        before = len(rows)
        rows.extend(_rows(file, MOST_RECORDS - len(rows)))
        counted = _count(file)
        complete = len(rows) - before == counted if counted else len(rows) < MOST_RECORDS and size <= MOST_BYTES
        whole = whole and complete
        read += size if complete else _bytes(rows[before:])
    if not rows:
        return _Texts((), 0, 0, whole)
    reading = decide(source, tuple(rows[:DECIDED_ROWS]), kind)
    tokens = tuple(length for row in rows for length in _lengths(reading, row))
    counts = [_count(file) for file, _, _ in state]
    if all(counts):
        total = float(sum(count or 0 for count in counts))
    else:
        total = len(rows) if whole else len(rows) * held / max(1, read)
    total = source.num_samples or total
    return _Texts(tokens, len(rows), total, whole)


def _rows(file: Path, most: int) -> list[Row]:
    found: list[Row] = []
    with suppress(LongFileError, OSError):
        if file_type(file) == "json" and file.stat().st_size > MOST_BYTES:
            return found  # it must be read whole
        for entry in read_file(limit_file(file, MOST_BYTES)):
            if isinstance(entry, Record):
                found.append(entry.row)
            if len(found) >= most:
                break
    return found


def _count(file: Path) -> int | None:
    """Number of rows that a table's metadata tell; None for other files."""
    try:
        return row_count(file)
    except (DataError, OSError):
        return None


def _bytes(rows: list[Row]) -> int:
    """About as many bytes as the rows take in a file of JSON lines."""
    return sum(len(str(row).encode("utf-8", "replace")) for row in rows)


def _lengths(reading: Reading, row: Row) -> list[int]:
    """Tokens of the sequences that a record gives: one, or two of a preference pair; none if it cannot be used."""
    try:
        found = reading.align(row)
    except BadExample:
        return []
    shared = sum(map(_tokens, _texts(found)))
    if found.messages[0]["role"] not in {"system", "text"}:
        shared += TOKENS_PER_CONVERSATION
    if found.rejected is None:
        return [shared]
    last = _tokens(str(found.messages[-1].get("content")))
    return [shared, shared - last + _tokens(str(found.rejected.get("content")))]


def _texts(conversation: Conversation) -> list[str]:
    told = [str(message.get("content")) for message in conversation.messages]
    return [*told, *(str(tool) for tool in conversation.tools or ())]


def _tokens(text: str) -> int:
    return round(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE
