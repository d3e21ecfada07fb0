"""Stores rows from a notebook cell as a Parquet file with a fingerprint, for the trainer process."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llf_core.untrusted import too_deep
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

ArrowT = TypeVar("ArrowT")
FINGERPRINT = 16  # hex digits
MAX_ROW_DEPTH = 32
"""Maximum nesting of a row: Parquet's readers refuse a schema of 100 levels, and a list takes two."""


class RowsError(UserError, ValueError):
    """The rows cannot be stored as a table; the message says what was expected."""


def to_table(rows: object) -> pa.Table:
    """Convert rows from a cell to a pyarrow table.

    Args:
        rows: an iterable of dicts, a pandas or polars DataFrame, a `datasets.Dataset`, or a pyarrow table. Types are
            recognized by their methods, without imports of these libraries.

    Raises:
        RowsError: the type is not supported, there are no rows, a row contains itself, a column has mixed types, or two
            have one name.
    """
    import pyarrow as pa

    if isinstance(rows, pa.Table):
        table = rows
    elif hasattr(rows, "iloc") and hasattr(rows, "columns"):  # pandas
        table = _checked(lambda: pa.Table.from_pandas(rows, preserve_index=False))
    elif hasattr(rows, "with_format") and hasattr(rows, "num_rows"):  # datasets, not a stream of it
        table = rows.with_format("arrow")[:]
    elif hasattr(rows, "to_arrow"):  # polars
        table = rows.to_arrow()
    elif isinstance(rows, dict | str | bytes) or not isinstance(rows, Iterable):
        raise RowsError(f"The data set is a {type(rows).__name__}. Expected a list of dicts, a DataFrame or a Dataset.")
    else:
        table = _of_dicts(list(rows))
    if not isinstance(table, pa.Table):  # a column of polars
        raise RowsError(f"The data set is a {type(rows).__name__}. Expected a list of dicts, a DataFrame or a Dataset.")
    if len(set(table.column_names)) < table.num_columns:
        raise RowsError(f"The data set has the columns {', '.join(table.column_names)}. Expected each name once.")
    if table.num_rows == 0:
        raise RowsError("The data set has no rows. Expected at least one.")
    return table.replace_schema_metadata(None)


def _of_dicts(given: list[object]) -> pa.Table:
    import pyarrow as pa

    rows: list[dict[object, object]] = []
    for number, row in enumerate(given, start=1):
        if not isinstance(row, dict):
            raise RowsError(f"Row {number} of the data set is a {type(row).__name__}. Expected a dict.")
        if too_deep(row, MAX_ROW_DEPTH):  # of a cycle, pyarrow would end the process
            raise RowsError(
                f"Row {number} of the data set contains itself, or is nested more than {MAX_ROW_DEPTH} levels deep. "
                "Expected plain data."
            )
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not all(isinstance(name, str) for name in names):
        raise RowsError("A row has a key that is not a string. Expected column names as keys.")
    if any("\ud800" <= letter <= "\udfff" for name in names for letter in str(name)):
        raise RowsError("A row has a key with a lone surrogate. Expected column names that can be encoded as UTF-8.")
    return pa.table({name: _checked(partial(pa.array, [row.get(name) for row in rows]), name) for name in names})


def _checked(make: Callable[[], ArrowT], name: object = None) -> ArrowT:
    import pyarrow as pa

    try:
        return make()
    except (pa.ArrowException, OverflowError, ValueError) as error:  # pyarrow's own for columns of one name is plain
        where = f"Column {name!r} of the data set" if name else "The data set"
        raise RowsError(
            f"{where} cannot be converted to a column: {error}. Expected values of one type, for example only strings."
        ) from None


def fingerprint(path: Path) -> str:
    """Hash columns, types and values of a Parquet file: 16 hex digits, whichever library made the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    sink = _Hash()
    with pa.PythonFile(sink, mode="w") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.hash.hexdigest()[:FINGERPRINT]


class _Hash:
    """A file object that only computes the hash of what is written."""

    closed = False

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def write_rows(rows: object, folder: Path) -> tuple[Path, str]:
    """Write rows atomically to `rows-<fingerprint>.parquet`; returns path and fingerprint.

    Raises:
        RowsError: see `to_table`; or Parquet cannot hold a value, such as an empty dict.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = to_table(rows)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".rows-{os.getpid()}.new"
    # Without Arrow's own schema, text is text, whichever of Arrow's two kinds a library uses.
    try:
        pq.write_table(table, partial, store_schema=False)
        mark = fingerprint(partial)
        path = folder / f"rows-{mark}.parquet"
        partial.replace(path)
    except pa.ArrowException as error:
        raise RowsError(
            f"The data set cannot be stored as Parquet: {error}. Expected no dict without keys as a value."
        ) from None
    finally:
        with suppress(OSError):  # half a file of a full disk
            partial.unlink()
    return path, mark


@contextmanager
def temporary_rows(rows: object, root: Path) -> Iterator[tuple[Path, str]]:
    """Write rows to a temporary file below `LLF_HOME`, removed at the end of the block; yields path and fingerprint."""
    (root / "cache").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / "cache", prefix="rows-") as folder:
        yield write_rows(rows, Path(folder))
