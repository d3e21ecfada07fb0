"""Rows of a notebook cell as one Parquet file: what a run in another process can read, with a fingerprint."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from llf_core.user_error import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

FINGERPRINT = 16  # hex digits


class RowsError(UserError, ValueError):
    """What a cell handed over is no table of rows."""


def table_of(rows: Any) -> pa.Table:
    """A table of what a cell may hold.

    Args:
        rows: a list (or another iterable) of dicts, a pandas or polars DataFrame, a `datasets.Dataset`, or a
            pyarrow table. Types are told by their methods, so none of these libraries is imported.

    Returns:
        The table, without metadata of its origin.

    Raises:
        RowsError: it is something else, or a column holds values of different kinds.
    """
    import pyarrow as pa

    if isinstance(rows, pa.Table):
        table = rows
    elif hasattr(rows, "iloc") and hasattr(rows, "columns"):  # pandas
        table = _checked(lambda: pa.Table.from_pandas(rows, preserve_index=False))
    elif hasattr(rows, "with_format") and hasattr(rows, "features"):  # datasets
        table = rows.with_format("arrow")[:]
    elif hasattr(rows, "to_arrow"):  # polars
        table = rows.to_arrow()
    elif isinstance(rows, dict | str | bytes) or not hasattr(rows, "__iter__"):
        raise RowsError(f"The data set is a {type(rows).__name__}. Expected a list of dicts, a DataFrame or a Dataset.")
    else:
        table = _of_dicts(list(rows))
    if table.num_rows == 0:
        raise RowsError("The data set has no rows. Expected at least one.")
    return table.replace_schema_metadata(None)


def _of_dicts(rows: list[Any]) -> pa.Table:
    import pyarrow as pa

    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise RowsError(f"Row {number} of the data set is a {type(row).__name__}. Expected a dict.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not all(isinstance(name, str) for name in names):
        raise RowsError("A row has a key that is not text. Expected names of columns as keys.")
    return pa.table(
        {name: _checked(lambda name=name: pa.array([row.get(name) for row in rows]), name) for name in names}
    )


def _checked(make: Any, name: str | None = None) -> Any:
    import pyarrow as pa

    try:
        return make()
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        where = f"Column {name!r} of the data set" if name else "The data set"
        raise RowsError(
            f"{where} can't be written as one column: {error}. Expected values of one kind, for example only text."
        ) from None


def fingerprint(path: Path) -> str:
    """16 hex digits, equal for equal columns, types and values.

    What is read from the file is hashed, so that it does not matter which library made the rows, nor which version
    of pyarrow wrote them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    sink = _Hash()
    with pa.PythonFile(sink, mode="w") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.hash.hexdigest()[:FINGERPRINT]


class _Hash:
    """A file that keeps only the hash of what is written to it."""

    closed = False

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is held here."""


def write_rows(rows: Any, folder: Path) -> tuple[Path, str]:
    """Writes rows to `rows-<fingerprint>.parquet`, whole or not at all.

    Args:
        rows: see `table_of`.
        folder: made where it is not there.

    Returns:
        The file and the fingerprint.

    Raises:
        RowsError: see `table_of`.
    """
    import pyarrow.parquet as pq

    table = table_of(rows)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".rows-{os.getpid()}.new"
    # Without Arrow's own schema, text is text, whichever of Arrow's two kinds a library uses.
    pq.write_table(table, partial, store_schema=False)
    mark = fingerprint(partial)
    path = folder / f"rows-{mark}.parquet"
    partial.replace(path)
    return path, mark
