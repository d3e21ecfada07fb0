"""Renames keys of a record's messages, for chat templates that read the same under another name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config import RunConfig
    from llf_core.data.records import Row

ROLES = ("messages", "chosen", "rejected")
"""Roles of the columns that hold messages."""


def renames_of(config: RunConfig) -> tuple[tuple[str, str], ...]:
    """Keys of messages to rename and their new names, sorted, as a `Reading` takes them; empty if none are.

    Args:
        config: for `rename_fields`.
    """
    return tuple(sorted((config.data.rename_fields or {}).items()))


def rename_fields(row: Row, columns: Mapping[str, str], names: Mapping[str, str]) -> Row:
    """Rename keys of the messages of a record, for chat templates that read the same under another name.

    Args:
        row: one record.
        columns: the row's column for each of LLaMA-Factory's names.
        names: new name of each key to rename. A message that has both keys keeps the value of the new one.

    Returns:
        A new record, in which messages of JSON text with such a key are objects; other columns are unchanged. The given
        record if it has no column of messages.
    """
    if "messages" not in columns:
        return row
    found = dict(row)
    for column in {columns[role] for role in ROLES if role in columns} & row.keys():
        found[column] = _renamed(row[column], names)
    return found


def _renamed(value: object, names: Mapping[str, str]) -> object:
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return value  # the format says what is wrong with it
        turns = parsed if isinstance(parsed, list) else [parsed]
        found = any(isinstance(one, dict) and names.keys() & one.keys() for one in turns)
        return _renamed(parsed, names) if found else value
    if isinstance(value, list):
        return [_renamed(turn, names) if isinstance(turn, dict) else turn for turn in value]
    if not isinstance(value, dict):
        return value
    kept = {key: one for key, one in value.items() if key not in names}
    moved = {names[key]: one for key, one in value.items() if key in names and one is not None}
    return moved | {key: one for key, one in kept.items() if one is not None or key not in moved}
