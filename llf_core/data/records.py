"""Records of a data set, and the lines that give none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.data.data_file import File

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a data set and its position.

    Attributes:
        index: 0-based index, counting broken records; in a file with one record per line, the index of the line,
            counting empty lines.
    """

    index: int
    row: Row


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that could not be read: 0-based index that its record would have, and 1-based number of the line."""

    index: int
    line: int
    reason: str


RecordOrBroken = Record | BrokenLine


def check_columns(path: File, names: Sequence[str | None]) -> None:
    """Refuse a table with two columns of one name: one of their values would be lost."""
    twice = sorted(str(name or "without a name") for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"{path} has the column {', '.join(twice)} twice, which is ambiguous. Rename one.")
