"""Reads the records of a file one by one, by the reader of its type; broken lines are reported and skipped."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from itertools import chain, starmap
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from llf_core.config.paths import COMPRESSED
from llf_core.data.data_file import (
    TABLE_TYPES,
    LongFileError,
    UnpackingError,
    file_type,
    open_unpacked,
    unpacking_errors,
)
from llf_core.data.errors import DataError
from llf_core.data.records import BrokenLine, Record, check_columns
from llf_core.untrusted import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from llf_core.data.data_file import File
    from llf_core.data.records import RecordOrBroken


SLICE_ROWS = 1000
"""Maximum number of rows of a table that are converted at a time."""
MAX_SLICE_BYTES = 64 << 20
"""Maximum decompressed bytes of rows of a Parquet file that are read at a time, as stated in its footer."""


def row_count(path: Path) -> int | None:
    """Number of rows of a Parquet or Arrow file, from its metadata; None for other types."""
    if file_type(path) not in TABLE_TYPES or path.suffix.lower() in COMPRESSED:
        return None
    import pyarrow as pa
    from pyarrow import parquet

    with unpacking_errors(path):
        if file_type(path) == "arrow":
            return sum(int(batch.num_rows) for batch in _batches(path))
        try:
            return int(parquet.read_metadata(path).num_rows)
        except pa.ArrowException as error:
            raise DataError(f"{path} is not a valid Parquet file: {str(error).rstrip('.')}.") from None


def without_nulls(value: object) -> object:
    """Remove the null fields that Arrow adds inside nested values to give all rows one type."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def records_of_batch(batch: pa.RecordBatch, start: int = 0) -> Iterator[RecordOrBroken]:
    """Convert a record batch to records; a row with an invalid value, or without a Python type, is a `BrokenLine`.

    An untrusted file's batch may point outside its own memory.
    """
    try:
        batch.validate(full=True)
        rows = batch.to_pylist()
    except (ValueError, OverflowError, KeyError) as error:  # `ArrowInvalid` is a `ValueError`
        if batch.num_rows > 1:
            middle = batch.num_rows // 2
            yield from records_of_batch(batch.slice(0, middle), start)
            yield from records_of_batch(batch.slice(middle), start + middle)
        else:
            yield BrokenLine(start, start + 1, _reason(error))
        return
    for index, row in enumerate(rows, start):
        yield Record(index, {key: without_nulls(value) for key, value in row.items()})


def _reason(error: Exception) -> str:
    """Why a row cannot be converted. A KeyError is from looking up the zone of its times by name."""
    if isinstance(error, KeyError):
        return f"a time in an unknown time zone: {brief(str(error.args[0]))}"
    return "a value that is broken, or outside the range of its type"


def read_parquet(path: File) -> Iterator[RecordOrBroken]:
    """Read the rows of a Parquet file, a slice of bounded size at a time.

    Raises:
        DataError: it is not a valid Parquet file, or has a column twice.
    """
    import pyarrow as pa
    from pyarrow import parquet

    start = 0
    try:
        with parquet.ParquetFile(path if isinstance(path, Path) else path.open()) as file:
            check_columns(path, file.schema_arrow.names)
            for group in range(file.num_row_groups):
                about = file.metadata.row_group(group)
                rows = MAX_SLICE_BYTES * max(about.num_rows, 1) // max(about.total_byte_size, 1)
                for batch in file.iter_batches(batch_size=min(max(rows, 1), SLICE_ROWS), row_groups=[group]):
                    yield from records_of_batch(batch, start)
                    start += batch.num_rows
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a valid Parquet file: a column's name is not UTF-8.") from None
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a valid Parquet file: {str(error).rstrip('.')}.") from None


def read_arrow(path: File) -> Iterator[RecordOrBroken]:
    """Read the rows of an Arrow file or stream, as `datasets` saves them; a local file is memory-mapped.

    Raises:
        DataError: it is not a valid Arrow file, or has a column twice.
    """
    start = 0
    for batch in _batches(path):
        try:
            names = batch.schema.names
        except UnicodeDecodeError:
            raise DataError(f"{path} is not a valid Arrow file: a column's name is not UTF-8.") from None
        check_columns(path, names)
        for begin in range(0, batch.num_rows, SLICE_ROWS):
            yield from records_of_batch(batch.slice(begin, SLICE_ROWS), start + begin)
        start += batch.num_rows


def _batches(path: File) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) if isinstance(path, Path) else pa.PythonFile(path.open(), "r") as file:
            try:
                stream = pa.ipc.open_stream(file)
                batches = iter(stream)
            except pa.ArrowInvalid:
                whole = pa.ipc.open_file(file)
                batches = (whole.get_batch(number) for number in range(whole.num_record_batches))
            yield from batches
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a valid Arrow file: {str(error).rstrip('.')}.") from None


MAX_LINE_BYTES = 64 << 20
"""Maximum bytes of a line; a small compressed file can contain a much longer one."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
READ_BYTES = 1 << 20


class _TwiceError(ValueError):
    """A JSON object with a duplicate key: one of the two values would be lost."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise _TwiceError(f"the key {twice!r} twice")
    return made


def _record(index: int, value: object) -> RecordOrBroken:
    if isinstance(value, dict):
        return Record(index, value)
    return BrokenLine(index, index + 1, f"a {type(value).__name__}, expected an object")


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Lines of a file including line ends, without a byte order mark; None for one above the size limit."""
    mark = BYTE_ORDER_MARK
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line.removeprefix(mark)
        else:
            while (rest := file.readline(READ_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield None
        mark = b""


def _too_long(index: int) -> BrokenLine:
    return BrokenLine(index, index + 1, f"longer than {MAX_LINE_BYTES / 1e6:,.0f} MB")


def read_jsonl(path: File) -> Iterator[RecordOrBroken]:
    """Read the object of each line that is not blank."""
    with open_unpacked(path) as file:
        for index, line in enumerate(_lines(file)):
            if line is None:
                yield _too_long(index)
                continue
            bare = line.rstrip()
            if not bare:
                continue
            try:
                value = json.loads(bare.decode("utf-8"), object_pairs_hook=_object)
            except json.JSONDecodeError as error:
                yield BrokenLine(index, index + 1, f"{error.msg.removesuffix(' at')} at column {error.colno}")
            except UnicodeDecodeError:
                yield BrokenLine(index, index + 1, "not UTF-8")
            except (ValueError, RecursionError) as error:  # a number with too many digits, or unclosed brackets
                yield BrokenLine(index, index + 1, str(error).partition(";")[0])
            else:
                yield _record(index, value)


def holds_lines(path: File) -> bool:
    """Whether a json file has one object per line instead of a list, judged by its first character."""
    with unpacking_errors(path), open_unpacked(path) as file:
        return file.read(4096).removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{")


def read_json(path: File) -> Iterator[RecordOrBroken]:
    """Read a list of objects. A file that starts with `{` is read as JSON lines, as Hugging Face does.

    Raises:
        DataError: the file is not a valid JSON list in UTF-8, or an object in it has a key twice.
    """
    if holds_lines(path):
        yield from read_jsonl(path)
        return
    try:
        with open_unpacked(path) as file:
            rows = json.loads(file.read().decode("utf-8-sig"), object_pairs_hook=_object)
    except LongFileError:
        raise
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not valid JSON: {error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno}. "
            "Fix it, or write one object per line (jsonl), so that only the broken line is lost."
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    except _TwiceError as error:
        raise DataError(
            f"{path} has an object with {error}. Rename one, or write one object per line (jsonl)."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {str(error).partition(';')[0]}.") from None
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}. Expected a list of objects.")
    yield from starmap(_record, enumerate(rows))


def _read_table(path: File, delimiter: str) -> Iterator[RecordOrBroken]:
    _widen_cells()
    with io.TextIOWrapper(open_unpacked(path), encoding="utf-8-sig", newline="") as file:
        lines = _cut_lines(file, path)
        try:
            header = next(lines, "")
            table = csv.DictReader(chain([header], lines), delimiter=_delimiter(header, delimiter), restkey=None)
        except csv.Error as error:
            raise DataError(f"{path} is not a valid table: {error} at line 1.") from None
        except UnicodeDecodeError:
            raise DataError(f"{path} is not UTF-8 (after line 0). Save it as UTF-8.") from None
        try:
            check_columns(path, table.fieldnames or ())
            for index, cells in enumerate(table):
                if None in cells:
                    yield BrokenLine(
                        index, table.line_num, f"more cells than the {len(table.fieldnames or ())} columns"
                    )
                else:
                    yield Record(index, dict(cells))
        except csv.Error as error:
            raise DataError(f"{path} is not a valid table: {error} at line {table.line_num}.") from None
        except UnicodeDecodeError:
            raise DataError(f"{path} is not UTF-8 (after line {table.line_num}). Save it as UTF-8.") from None


def _delimiter(header: str, usual: str) -> str:
    """The first of the usual delimiter, semicolon (of a German Excel), tab and comma that divides a header."""
    return next((one for one in (usual, *";\t,") if len(next(csv.reader([header], delimiter=one), [])) > 1), usual)


def _widen_cells() -> None:
    """Raise the cell size limit of the `csv` module, which is global to the process; never lower it."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))


def _cut_lines(file: io.TextIOWrapper, path: File) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) >= MAX_LINE_BYTES and not line.endswith("\n"):
            raise DataError(f"{path} has a line of more than {MAX_LINE_BYTES / 1e6:,.0f} MB (line {number}).")
        yield line


def read_csv(path: File) -> Iterator[RecordOrBroken]:
    """Read a table with commas, or with semicolons or tabs if its first line, which names the columns, has no comma.

    An empty cell is an empty text. The cell size limit of Python's module `csv` is raised for the rest of the process.
    """
    yield from _read_table(path, ",")


def read_tsv(path: File) -> Iterator[RecordOrBroken]:
    """Read a table with tabs, as `read_csv` does one with commas."""
    yield from _read_table(path, "\t")


def read_txt(path: File) -> Iterator[RecordOrBroken]:
    """Read one record `{"text": …}` of each line that is not blank, without its line end."""
    with open_unpacked(path) as file:
        for index, line in enumerate(_lines(file)):
            if line is None:
                yield _too_long(index)
                continue
            bare = line.rstrip(b"\r\n")
            if not bare.strip():
                continue
            try:
                yield Record(index, {"text": bare.decode("utf-8")})
            except UnicodeDecodeError:
                yield BrokenLine(index, index + 1, "not UTF-8")


READERS: dict[str, Callable[[File], Iterator[RecordOrBroken]]] = {
    "json": read_json,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "tsv": read_tsv,
    "txt": read_txt,
    "parquet": read_parquet,
    "arrow": read_arrow,
}


def read_file(path: File) -> Iterator[RecordOrBroken]:
    """Read a json, jsonl, csv, tsv, txt, parquet or arrow file. Text files may be compressed (gz, bz2, xz, zst).

    A broken line costs only its record, except in formats that must be parsed as a whole. Reading csv and tsv raises
    the limit of a cell's size of Python's module `csv`, for the rest of the process.

    Raises:
        DataError: the file cannot be read at all, or is of another type.
    """
    reader = READERS.get(file_type(path))
    if reader is None or (path.suffix.lower() in COMPRESSED and file_type(path) in TABLE_TYPES):
        kinds = f"{', '.join(READERS)}; texts may be compressed ({', '.join(COMPRESSED)})"
        raise DataError(f"{path} is of an unknown type ({path.suffix or 'no suffix'}). Expected one of {kinds}.")
    with unpacking_errors(path):
        yield from reader(path)


def record_unit(files: Sequence[File]) -> str:
    """Unit in which an editor counts records: `line` of a file, `row` of a table, else `record`."""
    if len(files) != 1:
        return "record"
    kind = file_type(files[0])
    try:
        if kind in {"jsonl", "txt"} or (kind == "json" and holds_lines(files[0])):
            return "line"
    except UnpackingError:
        return "record"  # reading says what is wrong with the file
    return "row" if kind in {"csv", "tsv", "parquet", "arrow"} else "record"
