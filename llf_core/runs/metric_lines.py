"""From lines of `metrics.jsonl` to arrays: by pyarrow where they are many, one by one where they are odd."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs.jsonl import as_number, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Rows = slice | NDArray[np.intp]

FEW = 64 * 1024  # bytes that are read line by line sooner than pyarrow is loaded
CHUNK = 32 * 1024 * 1024
LARGEST_STEP = 2**53
# pyarrow reads no NaN, and a column can't hold numbers and words: the three words travel as these numbers.
STAND_INS = {
    b'"NaN"': (b"1.7976931348623101e+308", np.nan),
    b'"Infinity"': (b"1.7976931348623102e+308", np.inf),
    b'"-Infinity"': (b"-1.7976931348623102e+308", -np.inf),
}


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
    start = 0
    while start < len(data):
        end = len(data) if len(data) - start <= CHUNK else data.rfind(b"\n", start, start + CHUNK) + 1
        if end <= start:  # one line longer than a chunk
            end = data.find(b"\n", start) + 1 or len(data)
        yield from _parse_chunk(data[start:end])
        start = end


def _parse_chunk(data: bytes) -> Iterator[Block]:
    """By pyarrow; where that can't, each half by itself, so that one bad line slows only its neighbours."""
    if len(data) > FEW:
        block = _by_pyarrow(data)
        if block is not None:
            yield block
            return
        middle = data.rfind(b"\n", 0, len(data) // 2) + 1
        if middle > 0:
            yield from _parse_chunk(data[:middle])
            yield from _parse_chunk(data[middle:])
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
            if number is not None:
                rows, values = columns.setdefault(name, ([], []))
                rows.append(len(steps))
                values.append(number)
        steps.append(record["step"])
        written = as_number(record.get("time"))
        times.append(np.nan if written is None else written)
        attempts.append(attempt if _is_step(attempt) and attempt < 2**31 else 1)
    return Block(
        np.array(steps, np.int64),
        np.array(times, np.float64),
        np.array(attempts, np.int32),
        {name: (np.array(rows, np.intp), np.array(values)) for name, (rows, values) in columns.items()},
    )


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_STEP


def _by_pyarrow(data: bytes) -> Block | None:
    """Reads many lines at once; None where a line among them is not like the others."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    spelled = b'"NaN"' in data or b'Infinity"' in data
    if spelled:
        for word, (number, _) in STAND_INS.items():
            data = data.replace(word, number)
    try:
        table = arrow_json.read_json(
            pa.BufferReader(data), read_options=arrow_json.ReadOptions(block_size=4 * 1024 * 1024)
        )
    except pa.ArrowInvalid:
        return None
    kinds = {column: table.schema.field(column).type for column in table.column_names}
    values = kinds.get("values")
    if kinds.get("step") != pa.int64() or values is None or not pa.types.is_struct(values):
        return None
    steps = table["step"]
    if steps.null_count or table["values"].null_count:
        return None
    block = Block(steps.to_numpy(), _floats(table, "time"), _attempts(table))
    if not _plausible(block):
        return None
    for column, name in zip(table["values"].flatten(), (one.name for one in values), strict=True):
        if pa.types.is_null(column.type):
            continue
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            return None
        block.values[name] = _values(column, spelled=spelled)
    return block


def _plausible(block: Block) -> bool:
    return not len(block.steps) or bool(block.steps.min() >= 0 and block.steps.max() < LARGEST_STEP)


def _floats(table: Any, name: str) -> NDArray[np.float64]:
    """A column as float64; NaN where it has no number."""
    import pyarrow as pa

    if name not in table.column_names or not pa.types.is_floating(table[name].type):
        if name in table.column_names and pa.types.is_integer(table[name].type):
            return np.asarray(table[name].cast(pa.float64()).to_numpy(), np.float64)
        return np.full(table.num_rows, np.nan)
    return np.asarray(table[name].to_numpy(), np.float64)


def _attempts(table: Any) -> NDArray[np.int32]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if "attempt" not in table.column_names or not pa.types.is_integer(table["attempt"].type):
        return np.ones(table.num_rows, np.int32)
    return np.asarray(pc.fill_null(table["attempt"], 1).to_numpy(), np.int32)


def _values(column: Any, *, spelled: bool) -> tuple[Rows, NDArray[np.float64]]:
    """The rows that have a value, and the values."""
    import pyarrow as pa

    rows: Rows = slice(None)
    if column.null_count:
        rows = np.flatnonzero(column.is_valid().to_numpy())
        column = column.drop_null()
    numbers = np.array(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    if spelled:
        for number, meant in STAND_INS.values():
            numbers[numbers == float(number)] = meant
    return rows, numbers
