"""Records of a data set, and the lines that give none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.data.conversation import turns_or_text
from llf_core.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.config import RunConfig
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


ROLES = ("messages", "chosen", "rejected")


def renames_of(config: RunConfig) -> tuple[tuple[str, str], ...]:
    """Keys of messages to rename and their new names (`rename_fields`), sorted."""
    return tuple(sorted((config.data.rename_fields or {}).items()))


def rename_fields(row: Row, columns: Mapping[str, str], names: Mapping[str, str], tags: Mapping[str, str]) -> Row:
    """Rename keys of the messages of a record. Messages in JSON text become objects.

    Args:
        columns: the row's column for each of LLaMA-Factory's names.
        names: new name of each key to rename. A message that has both keys keeps the value of the new one.
        tags: the data set's name for each of LLaMA-Factory's tags.
    """
    if "messages" not in columns:
        return row
    found = dict(row)
    for column in {columns[role] for role in ROLES if role in columns} & row.keys():
        found[column] = _renamed(turns_or_text(row[column], tags), names)
    return found


def _renamed(value: object, names: Mapping[str, str]) -> object:
    if isinstance(value, list):
        return [_renamed(turn, names) if isinstance(turn, dict) else turn for turn in value]
    if not isinstance(value, dict):
        return value
    kept = {key: one for key, one in value.items() if key not in names}
    moved = {names[key]: one for key, one in value.items() if key in names and one is not None}
    return moved | {key: one for key, one in kept.items() if one is not None or key not in moved}
