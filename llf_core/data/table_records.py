"""Reads the rows of Parquet and Arrow files in slices of bounded size, so that a damaged value costs one row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.paths import COMPRESSED
from llf_core.data.data_file import TABLE_TYPES, file_type, unpacking_errors
from llf_core.data.errors import DataError
from llf_core.data.records import BrokenLine, Record, check_columns
from llf_core.untrusted import brief

if TYPE_CHECKING:
    from collections.abc import Iterator

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
