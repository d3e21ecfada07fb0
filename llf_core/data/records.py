"""Reads the records of a data set, one by one; a broken line is named and the rest is used."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from llf_core.config.paths import COMPRESSED
from llf_core.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llf_core.data.cloud_storage import CloudFile

Row = dict[str, Any]
TABLES = ("parquet", "arrow")
"""Kinds of files that tell how many rows they hold, and of which any part can be read."""
SLICE = 1000
"""Rows of a table that are made at a time, at most."""
SLICE_BYTES = 64 << 20
"""Bytes of the rows of a Parquet file that are unpacked at a time, as far as its footer tells."""
LONGEST_LINE = 64 << 20
"""Bytes of a line: a longer one is no record, whatever a small packed file makes of it."""
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a data set and its place.

    Attributes:
        index: its 0-based number, broken ones counted; where each line of a file is a record, that of its line, empty
            ones counted too. People are told it from 1 on, see `DataReport.where`.
        row: what it holds.
    """

    index: int
    row: Row


@dataclass(frozen=True, slots=True)
class Flaw:
    """A line that could not be read.

    Attributes:
        index: the 0-based number of the record that it would have been.
        line: its 1-based number in the file.
        reason: what is wrong.
    """

    index: int
    line: int
    reason: str


Read = Record | Flaw


class LongFileError(DataError):
    """A file that holds more than was to be read of it."""


@dataclass(frozen=True)
class Beginning:
    """The beginning of a file of text, unpacked; it can what readers ask of a path.

    Attributes:
        path: the file.
        most: bytes that are read; where the file holds more, reading them raises a `LongFileError`.
    """

    path: Path
    most: int

    @property
    def suffix(self) -> str:
        """The end of its name without the packing: `.jsonl` of `rows.jsonl.gz`."""
        return f".{kind_of(self.path)}"

    @property
    def stem(self) -> str:
        """Its name without the end."""
        return self.path.name.partition(".")[0]

    def open(self, _mode: str = "rb") -> BinaryIO:
        """Opens it."""
        return cast("BinaryIO", io.BufferedReader(_Counted(_open(self.path), self)))

    def __str__(self) -> str:
        """As messages name it."""
        return str(self.path)


if TYPE_CHECKING:
    File = Path | CloudFile | Beginning


class _Counted(io.RawIOBase):
    def __init__(self, file: BinaryIO, beginning: Beginning) -> None:
        self._file, self._beginning, self._left = file, beginning, beginning.most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise LongFileError(f"{self._beginning} holds more than {self._beginning.most / 1e6:,.0f} MB.")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def beginning(path: Path, most: int) -> File:
    """A file of text of which no more than some bytes are read, however well it is packed; a table is itself.

    Args:
        path: the file.
        most: bytes, unpacked.
    """
    return path if kind_of(path) in TABLES else Beginning(path, most)


def counted_rows(path: Path) -> int | None:
    """How many rows a Parquet or Arrow file has, without reading them; None for others.

    Raises:
        DataError: it is no valid file of its kind.
    """
    if kind_of(path) not in TABLES or path.suffix.lower() in COMPRESSED:
        return None
    if kind_of(path) == "arrow":
        return sum(int(batch.num_rows) for batch in _batches(path))
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a valid Parquet file: {str(error).rstrip('.')}.") from None


def kind_of(path: File) -> str:
    """What a file holds by its name, lower case without a dot: `jsonl` of `rows.jsonl.gz`."""
    suffix = Path(path.stem).suffix if path.suffix.lower() in COMPRESSED else path.suffix
    return suffix.lower().removeprefix(".")


def read_file(path: File) -> Iterator[Read]:
    """Reads a json, jsonl, csv, tsv, txt, parquet or arrow file; texts may be compressed (gz, bz2, xz, zst).

    Yields:
        A `Record`, or a `Flaw` for a line that cannot be read.

    Raises:
        DataError: a file that cannot be read at all, or of another kind.
    """
    reader = READERS.get(kind_of(path))
    if reader is None or (path.suffix.lower() in COMPRESSED and kind_of(path) in TABLES):
        kinds = f"{', '.join(READERS)}; texts may be compressed ({', '.join(COMPRESSED)})"
        raise DataError(f"{path} is of an unknown kind ({path.suffix or 'no suffix'}). Expected one of {kinds}.")
    try:
        yield from reader(path)
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk, no permission
        raise DataError(f"{path} cannot be unpacked: {str(error).rstrip('.')}. Copy or make it again.") from None


def _open(path: File) -> BinaryIO:
    """The bytes of a file, unpacked."""
    suffix = path.suffix.lower()
    file = path.open("rb")
    if suffix == ".zst":
        import pyarrow as pa

        return cast("BinaryIO", io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")))
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast("BinaryIO", openers[suffix](file, "rb") if suffix in openers else file)


class _TwiceError(ValueError):
    """An object with the same key twice: one of the two values would be lost."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return made


def _check_columns(path: File, names: Sequence[str | None]) -> None:
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path} has the column {', '.join(twice)} twice, so it is not clear which one is meant. Rename one."
        )


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a file with their ends; None for one that is longer than a record may be, which is passed over."""
    while line := file.readline(LONGEST_LINE):
        if len(line) < LONGEST_LINE or line.endswith(b"\n"):
            yield line
            continue
        while (rest := file.readline(PIECE)) and not rest.endswith(b"\n"):
            pass
        yield None


def _too_long(index: int) -> Flaw:
    return Flaw(index, index + 1, f"longer than {LONGEST_LINE / 1e6:,.0f} MB")


def _read_jsonl(path: File) -> Iterator[Read]:
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
                yield Flaw(index, index + 1, f"{error.msg} at column {error.colno}")
            except UnicodeDecodeError:
                yield Flaw(index, index + 1, "not UTF-8")
            except (ValueError, RecursionError) as error:  # an endless number, brackets without an end
                yield Flaw(index, index + 1, str(error).partition(";")[0])
            else:
                if isinstance(row, dict):
                    yield Record(index, row)
                else:
                    yield Flaw(index, index + 1, f"a {type(row).__name__}, expected an object")


def _holds_lines(path: File) -> bool:
    """Whether a json file holds an object a line and no list."""
    with _open(path) as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def unit_of(files: Sequence[File]) -> str:
    """What people call the place of a record: the `line` of its file, the `row` of its table, else the `record`.

    Args:
        files: that hold a data set; records of several of them are numbered through all.
    """
    if len(files) != 1:
        return "record"
    kind = kind_of(files[0])
    if kind in {"jsonl", "txt"} or (kind == "json" and _holds_lines(files[0])):
        return "line"
    return "row" if kind in {"csv", "tsv", "parquet", "arrow"} else "record"


def _read_json(path: File) -> Iterator[Read]:
    """A list of objects; a file whose first sign is `{` is taken for JSON lines, as Hugging Face does."""
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
            f"{path} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}. "
            "Mend that place, or write one object a line (jsonl), where a broken line costs only itself."
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    except _TwiceError as error:
        raise DataError(f"{path} has an object with {error}. Rename one, or write one object a line (jsonl).") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {str(error).partition(';')[0]}.") from None
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}. Expected a list of objects.")
    for index, row in enumerate(rows):
        if isinstance(row, dict):
            yield Record(index, row)
        else:
            yield Flaw(index, index + 1, f"a {type(row).__name__}, expected an object")


def _read_table(path: File, delimiter: str) -> Iterator[Read]:
    _widen_cells()
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(_cut_lines(file, path), delimiter=delimiter, restkey=None)
        index = -1
        try:
            _check_columns(path, table.fieldnames or ())
            for index, cells in enumerate(table):
                if None in cells:
                    yield Flaw(index, table.line_num, f"more cells than the {len(table.fieldnames or ())} columns")
                else:
                    yield Record(index, dict(cells))
        except csv.Error as error:
            raise DataError(f"{path} is not a valid table: {error} at line {table.line_num}.") from None
        except UnicodeDecodeError:
            raise DataError(f"{path} is not UTF-8 (after line {table.line_num}). Save it as UTF-8.") from None


def _widen_cells() -> None:
    """Raises the `csv` module's limit of a cell, which is one for the whole process, and never lowers it."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))


def _cut_lines(file: io.TextIOWrapper, path: File) -> Iterator[str]:
    """The lines of a table.

    Raises:
        DataError: one is longer than a record may be; where the next row begins is not known then.
    """
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) >= LONGEST_LINE and not line.endswith("\n"):
            raise DataError(f"{path} has a line of more than {LONGEST_LINE / 1e6:,.0f} MB (line {number}).")
        yield line


def _read_csv(path: File) -> Iterator[Read]:
    yield from _read_table(path, ",")


def _read_tsv(path: File) -> Iterator[Read]:
    yield from _read_table(path, "\t")


def _read_txt(path: File) -> Iterator[Read]:
    """A record `{"text": …}` for each line that says something."""
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
                yield Flaw(index, index + 1, "not UTF-8")


def without_nulls(value: Any) -> Any:
    """Drops the empty fields that Arrow adds inside nested values to give all rows one type."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def records_of_rows(rows: list[Row], start: int = 0) -> Iterator[Record]:
    """Rows that come out of Arrow as records, numbered from `start`."""
    for index, row in enumerate(rows, start):
        yield Record(index, {key: without_nulls(value) for key, value in row.items()})


def records_of_batch(batch: Any, start: int = 0) -> Iterator[Read]:
    """The rows of a record batch, numbered from `start`; one with a broken value, or one that Python lacks, is a flaw.

    Args:
        batch: a `pyarrow.RecordBatch` or a table; that of a stranger's file may point outside its own memory.
        start: the number of its first row.
    """
    try:
        batch.validate(full=True)
        rows = batch.to_pylist()
    except (ValueError, OverflowError):  # `ArrowInvalid` is the first
        if batch.num_rows > 1:
            middle = batch.num_rows // 2
            yield from records_of_batch(batch.slice(0, middle), start)
            yield from records_of_batch(batch.slice(middle), start + middle)
        else:
            yield Flaw(start, start + 1, "a value that is broken, or outside the range of its type")
        return
    yield from records_of_rows(rows, start)


def _read_parquet(path: File) -> Iterator[Read]:
    import pyarrow as pa
    from pyarrow import parquet

    start = 0
    try:
        with parquet.ParquetFile(path if isinstance(path, Path) else path.open()) as file:
            _check_columns(path, file.schema_arrow.names)
            for group in range(file.num_row_groups):
                about = file.metadata.row_group(group)
                rows = SLICE_BYTES * max(about.num_rows, 1) // max(about.total_byte_size, 1)
                for batch in file.iter_batches(batch_size=min(max(rows, 1), SLICE), row_groups=[group]):
                    yield from records_of_batch(batch, start)
                    start += batch.num_rows
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a valid Parquet file: a column's name is not UTF-8.") from None
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a valid Parquet file: {str(error).rstrip('.')}.") from None


def _read_arrow(path: File) -> Iterator[Read]:
    start = 0
    for batch in _batches(path):
        try:
            names = batch.schema.names
        except UnicodeDecodeError:
            raise DataError(f"{path} is not a valid Arrow file: a column's name is not UTF-8.") from None
        _check_columns(path, names)
        for begin in range(0, batch.num_rows, SLICE):
            yield from records_of_batch(batch.slice(begin, SLICE), start + begin)
        start += batch.num_rows


def _batches(path: File) -> Iterator[Any]:
    """The record batches of an Arrow file, mapped into memory.

    Raises:
        DataError: it is none.
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


READERS: dict[str, Callable[[File], Iterator[Read]]] = {
    "json": _read_json,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "txt": _read_txt,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
}
