"""From lines of `metrics.jsonl` to arrays: by pyarrow where they are many, one by one where they are odd."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llf_core.runs.jsonl import as_number, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Rows = slice | NDArray[np.intp]

FEW = 64 * 1024  # bytes that are read line by line sooner than pyarrow is loaded
BLOCK = 2 * 1024 * 1024  # bytes that one thread parses at a time
LARGEST_STEP = 2**53
LARGEST_ATTEMPT = 2**31
MOST_NAMES = 1000
"""Names of numbers that a run has; those that come after so many are left out."""
NAME = re.compile(rb'"[^"]*"\s*:')
SEARCHED = 256 * 1024  # bytes that are searched for names at a time
MANY = 1000  # words in a piece, from which on replacing the rest at once is faster


class StandIn(NamedTuple):
    """A number that travels in the place of a word: pyarrow reads no NaN, nor words and numbers in one column."""

    word: bytes
    letter: int  # where the word's rare letter is
    number: bytes
    meant: float


STAND_INS = (
    StandIn(b'"NaN"', 1, b"1.7976931348621e+308", np.nan),
    StandIn(b'"Infinity"', 1, b"1.7976931348622e+308", np.inf),
    StandIn(b'"-Infinity"', 2, b"-1.7976931348622e+308", -np.inf),
)


@dataclass
class Block:
    """Records in the order of their lines.

    Attributes:
        steps: `[rows]`, int64.
        times: `[rows]`, float64, Unix seconds; NaN where a record has none.
        attempts: `[rows]`, int32.
        values: for each name the rows that have it, and their values as float64.
    """

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    attempts: NDArray[np.int32]
    values: dict[str, tuple[Rows, NDArray[np.float64]]] = field(default_factory=dict)


def parse_lines(data: bytes) -> Iterator[Block]:
    """Reads whole lines.

    Args:
        data: bytes that end with a newline, or nothing.

    Yields:
        The records, in order; lines that hold none are passed over.
    """
    if len(data) > FEW:
        block = _by_pyarrow(data) if _few_names(data) else None
        if block is not None:
            yield block
            return
        middle = data.rfind(b"\n", 0, len(data) // 2) + 1
        if middle > 0:
            # Each half by itself, so that one bad line slows only its neighbours.
            yield from parse_lines(data[:middle])
            yield from parse_lines(data[middle:])
            return
    yield _by_hand(data)


def _by_hand(data: bytes) -> Block:
    """Reads each line by itself."""
    steps: list[int] = []
    times: list[float] = []
    attempts: list[int] = []
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for line in data.splitlines():
        record = parse(line)
        if record is None or not _is_step(record.get("step")) or not isinstance(record.get("values"), dict):
            continue
        attempt = record.get("attempt", 1)
        for name, value in record["values"].items():
            number = as_number(value)
            if number is not None and (name in columns or len(columns) < MOST_NAMES):
                rows, values = columns.setdefault(name, ([], []))
                rows.append(len(steps))
                values.append(number)
        steps.append(record["step"])
        written = as_number(record.get("time"))
        times.append(np.nan if written is None else written)
        attempts.append(attempt if _is_step(attempt) and attempt < LARGEST_ATTEMPT else 1)
    return Block(
        np.array(steps, np.int64),
        np.array(times, np.float64),
        np.array(attempts, np.int32),
        {name: (np.array(rows, np.intp), np.array(values)) for name, (rows, values) in columns.items()},
    )


def _few_names(data: bytes) -> bool:
    """Whether no more names stand in these lines than a run has: pyarrow makes a column as long as all for each."""
    if b"\\" in data:  # in a name, it hides where that ends
        return False
    names: set[bytes] = set()
    for start in range(0, len(data), SEARCHED):
        names.update(NAME.findall(data, start, start + SEARCHED))
        if len(names) > MOST_NAMES:
            return False
    return True


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_STEP


def _by_pyarrow(data: bytes) -> Block | None:
    """Reads many lines at once; None where a line among them is not like the others."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    if not _all_objects(data):
        return None
    numbers = _with_stand_ins(data)
    options = arrow_json.ReadOptions(block_size=BLOCK)
    try:
        table = arrow_json.read_json(pa.BufferReader(numbers), read_options=options)
    except pa.ArrowInvalid:
        return None
    if not _has_form(table):
        return None
    block = Block(_numpy(table["step"]), _times(table), _attempts(table))
    if block.steps.min() < 0 or block.steps.max() >= LARGEST_STEP:
        return None
    for column, field_ in zip(table["values"].flatten(), table.schema.field("values").type, strict=True):
        if not pa.types.is_null(column.type):
            block.values[field_.name] = _values(column, spelled=numbers is not data)
    return block


def _all_objects(data: bytes) -> bool:
    """Whether every line begins as an object does, and has one more object in it at most, and no list.

    A line `null`, or one nested thousands of levels deep, would crash pyarrow (26.0) and this process.
    """
    letters = np.frombuffer(data, np.uint8)
    begins = np.append(0, np.flatnonzero(letters[:-1] == ord("\n")) + 1)
    if not (letters[begins] == ord("{")).all() or b"[" in data:
        return False
    opened = np.flatnonzero(letters == ord("{"))
    return bool(np.diff(np.searchsorted(opened, np.append(begins, len(letters)))).max() <= 2)  # noqa: PLR2004


def _with_stand_ins(data: bytes) -> bytes:
    """The lines with numbers in place of the three words; the same object where there is none."""
    for one in STAND_INS:
        data = _replaced(data, one)
    return data


def _replaced(data: bytes, one: StandIn) -> bytes:
    """`data.replace(one.word, one.number)`, fast where the word is rare.

    A search for the word's rare letter is ten times as fast as one for a word that begins as every name does.
    """
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


def _has_form(table: Any) -> bool:
    """Whether every record has a whole step and, in `values`, nothing but numbers."""
    import pyarrow as pa

    kinds = {column: table.schema.field(column).type for column in ("step", "values") if column in table.column_names}
    if kinds.get("step") != pa.int64() or not pa.types.is_struct(kinds.get("values", pa.null())):
        return False
    if not table.num_rows or table["step"].null_count or table["values"].null_count:
        return False
    return all(_is_number(field_.type) or pa.types.is_null(field_.type) for field_ in kinds["values"])


def _numpy(column: Any) -> NDArray[Any]:
    """A column of numbers without a gap. Not `to_numpy`, which imports pandas."""
    return np.from_dlpack(column.combine_chunks())


def _times(table: Any) -> NDArray[np.float64]:
    if "time" not in table.column_names or not _is_number(table["time"].type):
        return np.full(table.num_rows, np.nan)
    return _filled(table["time"], np.nan)


def _attempts(table: Any) -> NDArray[np.int32]:
    import pyarrow as pa

    if "attempt" not in table.column_names or not pa.types.is_integer(table["attempt"].type):
        return np.ones(table.num_rows, np.int32)
    attempts = _filled(table["attempt"], 1)
    return np.where((attempts >= 0) & (attempts < LARGEST_ATTEMPT), attempts, 1).astype(np.int32)


def _filled(column: Any, default: float) -> NDArray[np.float64]:
    """A column as float64, with `default` in its gaps. Not `fill_null`, which imports pandas."""
    filled = np.full(len(column), default)
    rows, numbers = _values(column, spelled=False)
    filled[rows] = numbers
    return filled


def _values(column: Any, *, spelled: bool) -> tuple[Rows, NDArray[np.float64]]:
    """The rows that have a value, and the values."""
    import pyarrow as pa

    rows: Rows = slice(None)
    if column.null_count:
        rows = np.flatnonzero(_numpy(column.is_valid().cast(pa.uint8())))
        column = column.drop_null()
    numbers = np.array(_numpy(column), np.float64)
    if spelled:
        for one in STAND_INS:
            numbers[numbers == float(one.number)] = one.meant
    return rows, numbers


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
