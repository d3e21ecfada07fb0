"""Reads the records of a data set one by one; broken lines are reported and skipped."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from llf_core.config.paths import COMPRESSED
from llf_core.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from llf_core.data.cloud_storage import CloudFile

Row = dict[str, Any]
TABLE_TYPES = ("parquet", "arrow")
"""File types that store their number of rows and allow random access."""
SLICE_ROWS = 1000
"""Maximum number of rows of a table that are converted at a time."""
MAX_SLICE_BYTES = 64 << 20
"""Maximum decompressed bytes of rows of a Parquet file that are read at a time, as stated in its footer."""
MAX_LINE_BYTES = 64 << 20
"""Maximum bytes of a line; a small compressed file can contain a much longer one."""
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a data set and its position.

    Attributes:
        index: 0-based index, counting broken records; in a file with one record per line, the index of the line,
            counting empty lines. It is shown to people counted from 1, see `DataReport.where`.
        row: values by column.
    """

    index: int
    row: Row


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that could not be read.

    Attributes:
        index: 0-based index that its record would have.
        line: 1-based number of the line in the file.
        reason: what is wrong.
    """

    index: int
    line: int
    reason: str


RecordOrBroken = Record | BrokenLine


class LongFileError(DataError):
    """A file that is longer than the limit for reading it."""


@dataclass(frozen=True)
class LimitedFile:
    """The beginning of a decompressed text file, with the methods of a path that readers use.

    Attributes:
        path: path of the file.
        max_bytes: maximum number of bytes to read. Reading beyond it raises a `LongFileError`.
    """

    path: Path
    max_bytes: int

    @property
    def suffix(self) -> str:
        """File name extension of the decompressed content: `.jsonl` of `rows.jsonl.gz`.

        The reader is chosen by it, and this file decompresses itself.
        """
        return f".{file_type(self.path)}"

    @property
    def stem(self) -> str:
        """File name without any extension, as readers use it of a path."""
        return self.path.name.partition(".")[0]

    def open(self, _mode: str = "rb") -> BinaryIO:
        """Open the file and decompress it. Reading beyond the limit raises a `LongFileError`.

        A form checks a large file by its beginning. It is read as bytes, whichever mode is given.

        Raises:
            OSError: the file cannot be opened.
        """
        return cast("BinaryIO", io.BufferedReader(_Counted(_open(self.path), self)))

    def __str__(self) -> str:
        """The path, for messages."""
        return str(self.path)


if TYPE_CHECKING:
    File = Path | CloudFile | LimitedFile


class _Counted(io.RawIOBase):
    def __init__(self, file: BinaryIO, beginning: LimitedFile) -> None:
        self._file, self._beginning, self._left = file, beginning, beginning.max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise LongFileError(f"{self._beginning} holds more than {self._beginning.max_bytes / 1e6:,.0f} MB.")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def limit_file(path: Path, max_bytes: int) -> File:
    """Limit the decompressed bytes that are read of a text file, since a small file can decompress to a huge one.

    Args:
        path: the file.
        max_bytes: maximum number of decompressed bytes.

    Returns:
        The file with the limit; a table unchanged, since its rows are read in slices of bounded size.
    """
    return path if file_type(path) in TABLE_TYPES else LimitedFile(path, max_bytes)


def row_count(path: Path) -> int | None:
    """Number of rows of a Parquet or Arrow file, from its metadata, without reading a row, for a forecast.

    Args:
        path: the file.

    Returns:
        The number; None for files of other types, which must be read to count.

    Raises:
        DataError: the file is not valid.
        OSError: the file cannot be opened.
    """
    if file_type(path) not in TABLE_TYPES or path.suffix.lower() in COMPRESSED:
        return None
    import pyarrow as pa
    from pyarrow import parquet

    with _unpacking(path):
        if file_type(path) == "arrow":
            return sum(int(batch.num_rows) for batch in _batches(path))
        try:
            return int(parquet.read_metadata(path).num_rows)
        except pa.ArrowException as error:
            raise DataError(f"{path} is not a valid Parquet file: {str(error).rstrip('.')}.") from None


def file_type(path: File) -> str:
    """File type by name, in lower case without a dot, by which the reader is chosen: `jsonl` of `rows.jsonl.gz`."""
    suffix = Path(path.stem).suffix if path.suffix.lower() in COMPRESSED else path.suffix
    return suffix.lower().removeprefix(".")


def read_file(path: File) -> Iterator[RecordOrBroken]:
    """Read a json, jsonl, csv, tsv, txt, parquet or arrow file. Text files may be compressed (gz, bz2, xz, zst).

    A broken line costs only its record, except in formats that must be parsed as a whole. Reading csv and tsv raises
    the limit of a cell's size of Python's module `csv`, for the rest of the process.

    Args:
        path: a local file, a `LimitedFile` or a `CloudFile`.

    Yields:
        A `Record`, or a `BrokenLine` for a line that cannot be read.

    Raises:
        DataError: the file cannot be read at all, or is of another type.
        LongFileError: more than the limit of a `LimitedFile` was read.
        OSError: the file cannot be opened or read, for example without permission, or on a failing disk.
    """
    reader = READERS.get(file_type(path))
    if reader is None or (path.suffix.lower() in COMPRESSED and file_type(path) in TABLE_TYPES):
        kinds = f"{', '.join(READERS)}; texts may be compressed ({', '.join(COMPRESSED)})"
        raise DataError(f"{path} is of an unknown type ({path.suffix or 'no suffix'}). Expected one of {kinds}.")
    with _unpacking(path):
        yield from reader(path)


@contextmanager
def _unpacking(path: File) -> Iterator[None]:
    """Context manager that turns errors of a file's broken content into a `DataError`."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk, no permission
        raise DataError(f"{path} cannot be unpacked: {str(error).rstrip('.')}. Copy or create it again.") from None


def _open(path: File) -> BinaryIO:
    """Open a file and decompress it."""
    suffix = path.suffix.lower()
    file = path.open("rb")
    if suffix == ".zst":
        import pyarrow as pa

        return cast("BinaryIO", io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")))
    openers: dict[str, Callable[[BinaryIO, str], object]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast("BinaryIO", openers[suffix](file, "rb") if suffix in openers else file)


class _TwiceError(ValueError):
    """A JSON object with a duplicate key: one of the two values would be lost."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return made


def _check_columns(path: File, names: Sequence[str | None]) -> None:
    twice = sorted({str(name or "without a name") for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has the column {', '.join(twice)} twice, which is ambiguous. Rename one.")


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Lines of a file including line ends; None for a line above the size limit, which is skipped."""
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while (rest := file.readline(READ_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield None


def _too_long(index: int) -> BrokenLine:
    return BrokenLine(index, index + 1, f"longer than {MAX_LINE_BYTES / 1e6:,.0f} MB")


def _read_jsonl(path: File) -> Iterator[RecordOrBroken]:
    with _open(path) as file:
        for index, line in enumerate(_lines(file)):
            if line is None:
                yield _too_long(index)
                continue
            bare = (line.removeprefix(b"\xef\xbb\xbf") if index == 0 else line).rstrip()
            if not bare:
                continue
            try:
                row = json.loads(bare.decode("utf-8"), object_pairs_hook=_object)
            except json.JSONDecodeError as error:
                yield BrokenLine(index, index + 1, f"{error.msg.removesuffix(' at')} at column {error.colno}")
            except UnicodeDecodeError:
                yield BrokenLine(index, index + 1, "not UTF-8")
            except (ValueError, RecursionError) as error:  # a number with too many digits, or unclosed brackets
                yield BrokenLine(index, index + 1, str(error).partition(";")[0])
            else:
                if isinstance(row, dict):
                    yield Record(index, row)
                else:
                    yield BrokenLine(index, index + 1, f"a {type(row).__name__}, expected an object")


def _holds_lines(path: File) -> bool:
    """Whether a json file has one object per line instead of a list."""
    with _open(path) as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def record_unit(files: Sequence[File]) -> str:
    """Unit in which people count records, as an editor does: `line` of a file, `row` of a table, else `record`.

    Args:
        files: files of a data set; records are numbered across several files, whose unit is `record`. A compressed json
            file that cannot be unpacked has the unit `record` too.

    Raises:
        OSError: a json file cannot be opened.
        DataError: a json file of a cloud cannot be opened.
    """
    if len(files) != 1:
        return "record"
    kind = file_type(files[0])
    try:
        if kind in {"jsonl", "txt"} or (kind == "json" and _holds_lines(files[0])):
            return "line"
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return "record"  # reading says what is wrong with the file
    return "row" if kind in {"csv", "tsv", "parquet", "arrow"} else "record"


def _read_json(path: File) -> Iterator[RecordOrBroken]:
    """Read a list of objects. A file that starts with `{` is read as JSON lines, as Hugging Face does."""
    if _holds_lines(path):
        yield from _read_jsonl(path)
        return
    try:
        with _open(path) as file:
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
    for index, row in enumerate(rows):
        if isinstance(row, dict):
            yield Record(index, row)
        else:
            yield BrokenLine(index, index + 1, f"a {type(row).__name__}, expected an object")


def _read_table(path: File, delimiter: str) -> Iterator[RecordOrBroken]:
    _widen_cells()
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(_cut_lines(file, path), delimiter=delimiter, restkey=None)
        index = -1
        try:
            _check_columns(path, table.fieldnames or ())
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


def _widen_cells() -> None:
    """Raise the cell size limit of the `csv` module, which is global to the process; never lower it."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))


def _cut_lines(file: io.TextIOWrapper, path: File) -> Iterator[str]:
    """Lines of a table.

    Raises:
        DataError: a line is above the size limit; where the next row starts is then unknown.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) >= MAX_LINE_BYTES and not line.endswith("\n"):
            raise DataError(f"{path} has a line of more than {MAX_LINE_BYTES / 1e6:,.0f} MB (line {number}).")
        yield line


def _read_csv(path: File) -> Iterator[RecordOrBroken]:
    yield from _read_table(path, ",")


def _read_tsv(path: File) -> Iterator[RecordOrBroken]:
    yield from _read_table(path, "\t")


def _read_txt(path: File) -> Iterator[RecordOrBroken]:
    """One record `{"text": …}` for each line that is not blank."""
    with _open(path) as file:
        for index, line in enumerate(_lines(file)):
            if line is None:
                yield _too_long(index)
                continue
            bare = (line.removeprefix(b"\xef\xbb\xbf") if index == 0 else line).rstrip(b"\r\n")
            if not bare.strip():
                continue
            try:
                yield Record(index, {"text": bare.decode("utf-8")})
            except UnicodeDecodeError:
                yield BrokenLine(index, index + 1, "not UTF-8")


def without_nulls(value: object) -> object:
    """Remove the null fields that Arrow adds inside nested values to give all rows one type.

    Otherwise a message would have keys that its record does not have, such as `tool_calls: None`.

    Args:
        value: a value of a row.

    Returns:
        A copy without null fields of dicts; None inside lists stays.
    """
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _records_of_rows(rows: list[Row], start: int = 0) -> Iterator[Record]:
    """Convert rows from Arrow to records, without the nulls that Arrow adds.

    Args:
        rows: rows.
        start: index of the first row.

    Yields:
        One record per row.
    """
    for index, row in enumerate(rows, start):
        yield Record(index, {key: without_nulls(value) for key, value in row.items()})


def records_of_batch(batch: pa.RecordBatch, start: int = 0) -> Iterator[RecordOrBroken]:
    """Convert a record batch to records, so that a damaged value costs one row and not the whole batch.

    A batch that fails is halved until the failing rows are found.

    Args:
        batch: a `pyarrow.RecordBatch` or table. An untrusted file's batch may point outside its own memory.
        start: index of its first row.

    Yields:
        A record per row; a `BrokenLine` for a row with an invalid value, or with one without a Python type.
    """
    try:
        batch.validate(full=True)
        rows = batch.to_pylist()
    except (ValueError, OverflowError, KeyError):  # `ArrowInvalid` is a `ValueError`; an unknown time zone a `KeyError`
        if batch.num_rows > 1:
            middle = batch.num_rows // 2
            yield from records_of_batch(batch.slice(0, middle), start)
            yield from records_of_batch(batch.slice(middle), start + middle)
        else:
            yield BrokenLine(start, start + 1, "a value that is broken, or outside the range of its type")
        return
    yield from _records_of_rows(rows, start)


def _read_parquet(path: File) -> Iterator[RecordOrBroken]:
    import pyarrow as pa
    from pyarrow import parquet

    start = 0
    try:
        with parquet.ParquetFile(path if isinstance(path, Path) else path.open()) as file:
            _check_columns(path, file.schema_arrow.names)
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


def _read_arrow(path: File) -> Iterator[RecordOrBroken]:
    start = 0
    for batch in _batches(path):
        try:
            names = batch.schema.names
        except UnicodeDecodeError:
            raise DataError(f"{path} is not a valid Arrow file: a column's name is not UTF-8.") from None
        _check_columns(path, names)
        for begin in range(0, batch.num_rows, SLICE_ROWS):
            yield from records_of_batch(batch.slice(begin, SLICE_ROWS), start + begin)
        start += batch.num_rows


def _batches(path: File) -> Iterator[pa.RecordBatch]:
    """Record batches of an Arrow file, memory-mapped.

    Raises:
        DataError: it is not an Arrow file.
    """
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


READERS: dict[str, Callable[[File], Iterator[RecordOrBroken]]] = {
    "json": _read_json,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "txt": _read_txt,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
}
