"""Parses lines of `metrics.jsonl` into arrays, with pyarrow for large regular inputs, else line by line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llf_core.runs.event_fields import LARGEST, LARGEST_ATTEMPT, is_count
from llf_core.runs.jsonl import as_number, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

    Rows = slice | NDArray[np.intp]

MIN_ARROW_BYTES = 64 * 1024  # below this size, parsing line by line is faster than importing pyarrow
BLOCK = 2 * 1024 * 1024  # bytes per thread and block
MAX_NAMES = 1000
"""Maximum number of metrics per run; further names are ignored."""
NAME = re.compile(rb'"[^"]*"\s*:')
SEARCHED = 256 * 1024  # bytes searched for names at a time
MANY = 1000  # from this number of words, replacing all at once is faster


class Placeholder(NamedTuple):
    """A number that replaces a string before parsing, since pyarrow reads no NaN and no mixed columns."""

    word: bytes
    letter: int  # position of the word's rare letter
    number: bytes
    meant: float


PLACEHOLDERS = (
    Placeholder(b'"NaN"', 1, b"1.7976931348621e+308", np.nan),
    Placeholder(b'"Infinity"', 1, b"1.7976931348622e+308", np.inf),
    Placeholder(b'"-Infinity"', 2, b"-1.7976931348622e+308", -np.inf),
)


@dataclass
class Block:
    """Records in line order.

    Attributes:
        steps: `[rows]`, int64.
        times: `[rows]`, float64, Unix seconds; NaN if missing.
        attempts: `[rows]`, int32.
        values: for each metric the rows that have it, and their values as float64.
    """

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    attempts: NDArray[np.int32]
    values: dict[str, tuple[Rows, NDArray[np.float64]]] = field(default_factory=dict)


def parse_lines(data: bytes) -> Iterator[Block]:
    """Parse complete lines of `metrics.jsonl` into arrays; invalid lines are skipped.

    More than `MIN_ARROW_BYTES` are parsed by pyarrow, which is much faster since it makes no Python object of each
    number. Data with an irregular line is halved until only its neighbors are parsed line by line.
    """
    if len(data) > MIN_ARROW_BYTES:
        block = _parse_with_pyarrow(data) if _few_names(data) else None
        if block is not None:
            yield block
            return
        middle = data.rfind(b"\n", 0, len(data) // 2) + 1
        if middle > 0:
            # Parse each half separately, so that one invalid line slows only its neighbors.
            yield from parse_lines(data[:middle])
            yield from parse_lines(data[middle:])
            return
    yield _parse_line_by_line(data)


def _parse_line_by_line(data: bytes) -> Block:
    steps: list[int] = []
    times: list[float] = []
    attempts: list[int] = []
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for line in data.splitlines():
        record = parse(line)
        if record is None or not is_count(record.get("step")) or not isinstance(record.get("values"), dict):
            continue
        attempt = record.get("attempt", 1)
        for name, value in record["values"].items():
            number = as_number(value)
            if number is not None and (name in columns or len(columns) < MAX_NAMES):
                rows, values = columns.setdefault(name, ([], []))
                rows.append(len(steps))
                values.append(number)
        steps.append(record["step"])
        written = as_number(record.get("time"))
        times.append(np.nan if written is None else written)
        attempts.append(attempt if is_count(attempt) and attempt < LARGEST_ATTEMPT else 1)
    return Block(
        np.array(steps, np.int64),
        np.array(times, np.float64),
        np.array(attempts, np.int32),
        {name: (np.array(rows, np.intp), np.array(values)) for name, (rows, values) in columns.items()},
    )


def _few_names(data: bytes) -> bool:
    """Whether the lines hold at most `MAX_NAMES` names; pyarrow allocates a full column for each."""
    if b"\\" in data:  # an escape in a name hides where it ends
        return False
    names: set[bytes] = set()
    for start in range(0, len(data), SEARCHED):
        names.update(NAME.findall(data, start, start + SEARCHED))
        if len(names) > MAX_NAMES:
            return False
    return True


def _parse_with_pyarrow(data: bytes) -> Block | None:
    """Parse many lines at once; None if a line differs from the others in structure."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    if not _all_objects(data):
        return None
    numbers = _with_placeholders(data)
    options = arrow_json.ReadOptions(block_size=BLOCK)
    try:
        table = arrow_json.read_json(pa.BufferReader(numbers), read_options=options)
    except pa.ArrowInvalid:
        return None
    if not _has_form(table):
        return None
    block = Block(_numpy(table["step"]), _times(table, spelled=numbers is not data), _attempts(table))
    if block.steps.min() < 0 or block.steps.max() >= LARGEST:
        return None
    for column, field_ in zip(table["values"].flatten(), table.schema.field("values").type, strict=True):
        if not pa.types.is_null(column.type):
            block.values[field_.name] = _values(column, spelled=numbers is not data)
    return block


def _all_objects(data: bytes) -> bool:
    """Whether every line starts with an object and contains at most one nested object and no list.

    A line `null`, or one nested thousands of levels deep, would crash pyarrow 26.0 and this process.
    """
    letters = np.frombuffer(data, np.uint8)
    begins = np.append(0, np.flatnonzero(letters[:-1] == ord("\n")) + 1)
    if not (letters[begins] == ord("{")).all() or b"[" in data:
        return False
    opened = np.flatnonzero(letters == ord("{"))
    return bool(np.diff(np.searchsorted(opened, np.append(begins, len(letters)))).max() <= 2)  # noqa: PLR2004


def _with_placeholders(data: bytes) -> bytes:
    """Replace the three strings for non-finite numbers; returns the same object if there are none."""
    for one in PLACEHOLDERS:
        data = _replaced(data, one)
    return data


def _replaced(data: bytes, one: Placeholder) -> bytes:
    """`data.replace(one.word, one.number)`, ten times faster for rare words by searching for the word's rare letter."""
    letter = one.word[one.letter : one.letter + 1]
    pieces: list[bytes] = []
    start, at = 0, data.find(letter)
    while at >= 0:
        first = at - one.letter
        if data.startswith(one.word, max(first, 0)):
            pieces += [data[start:first], one.number]
            start = first + len(one.word)
            if len(pieces) > MANY:
                return b"".join(pieces) + data[start:].replace(one.word, one.number)
        at = data.find(letter, at + 1)
    return b"".join([*pieces, data[start:]]) if pieces else data


def _has_form(table: pa.Table) -> bool:
    """Whether every record has an integer step and only numbers in `values`."""
    import pyarrow as pa

    kinds = {column: table.schema.field(column).type for column in ("step", "values") if column in table.column_names}
    if kinds.get("step") != pa.int64() or not pa.types.is_struct(kinds.get("values", pa.null())):
        return False
    if not table.num_rows or table["step"].null_count or table["values"].null_count:
        return False
    return all(_is_number(field_.type) or pa.types.is_null(field_.type) for field_ in kinds["values"])


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    """A number column without nulls as numpy. Avoids `to_numpy`, which imports pandas."""
    return np.from_dlpack(column.combine_chunks())


def _times(table: pa.Table, *, spelled: bool) -> NDArray[np.float64]:
    if "time" not in table.column_names or not _is_number(table["time"].type):
        return np.full(table.num_rows, np.nan)
    return _filled(table["time"], np.nan, spelled=spelled)


def _attempts(table: pa.Table) -> NDArray[np.int32]:
    import pyarrow as pa

    if "attempt" not in table.column_names or not pa.types.is_integer(table["attempt"].type):
        return np.ones(table.num_rows, np.int32)
    attempts = _filled(table["attempt"], 1, spelled=False)
    return np.where((attempts >= 0) & (attempts < LARGEST_ATTEMPT), attempts, 1).astype(np.int32)


def _filled(column: pa.ChunkedArray, default: float, *, spelled: bool) -> NDArray[np.float64]:
    """A column as float64, nulls replaced by `default`. Avoids `fill_null`, which imports pandas."""
    filled = np.full(len(column), default)
    rows, numbers = _values(column, spelled=spelled)
    filled[rows] = numbers
    return filled


def _values(column: pa.ChunkedArray, *, spelled: bool) -> tuple[Rows, NDArray[np.float64]]:
    import pyarrow as pa

    rows: Rows = slice(None)
    if column.null_count:
        rows = np.flatnonzero(_numpy(column.is_valid().cast(pa.uint8())))
        column = column.drop_null()
    numbers = np.array(_numpy(column), np.float64)
    if spelled:
        for one in PLACEHOLDERS:
            numbers[numbers == float(one.number)] = one.meant
    return rows, numbers


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
