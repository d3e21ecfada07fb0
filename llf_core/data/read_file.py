"""Reads the records of a file one by one, by the reader of its type; broken lines are reported and skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.paths import COMPRESSED
from llf_core.data.data_file import TABLE_TYPES, UnpackingError, file_type, unpacking_errors
from llf_core.data.errors import DataError
from llf_core.data.table_records import read_arrow, read_parquet
from llf_core.data.text_records import holds_lines, read_csv, read_json, read_jsonl, read_tsv, read_txt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llf_core.data.data_file import File
    from llf_core.data.records import RecordOrBroken

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
