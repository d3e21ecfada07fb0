"""Reads the records of text files: JSON, JSON lines, tables with a separator, and lines of plain text.

A broken line gives a `BrokenLine`, except in formats that must be parsed as a whole. Errors of a broken compressed file
pass through to `llf_core.data.read_file`, which converts them to an `UnpackingError`.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from itertools import chain, starmap
from typing import TYPE_CHECKING, BinaryIO

from llf_core.data.data_file import LongFileError, open_unpacked, unpacking_errors
from llf_core.data.errors import DataError
from llf_core.data.records import BrokenLine, Record, check_columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.data.data_file import File
    from llf_core.data.records import RecordOrBroken

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
