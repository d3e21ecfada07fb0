"""Decides how a data set's rows are to be read, once for the whole set, from its entry or its columns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.data.errors import DataError
from llf_core.data.formats import alpaca, openai, sharegpt
from llf_core.data.nearest import did_you_mean, listed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from llf_core.data.formats.conversation import Conversation
    from llf_core.data.records import Row
    from llf_core.data.sources import Source

FORMATS: dict[str, ModuleType] = {"alpaca": alpaca, "sharegpt": sharegpt, "openai": openai}
TURNS = ("messages", "conversations", "conversation", "chat", "dialogue", "dialog", "turns")
QUESTIONS = ("instruction", "prompt", "question", "query", "input", "problem")
ANSWERS = ("output", "response", "completion", "answer", "answers", "solution", "target")


@dataclass(frozen=True)
class Reading:
    """How rows become conversations.

    Attributes:
        format: `alpaca`, `sharegpt` or `openai`.
        columns: LLaMA-Factory's name to the set's own.
        tags: LLaMA-Factory's name of a tag to the set's own.
        reason: why this format.
    """

    format: str
    columns: dict[str, str]
    tags: dict[str, str]
    reason: str

    def align(self, row: Row) -> Conversation:
        """The conversation of one row.

        Raises:
            BadExample: the row says none.
        """
        conversation: Conversation = FORMATS[self.format].align(row, self.columns, self.tags)
        return conversation


def decide(source: Source, rows: Sequence[Row]) -> Reading:
    """The format of a data set: as its entry says, else proposed from the columns of its first rows.

    Args:
        source: the data set.
        rows: its first rows, at least one.

    Raises:
        DataError: a column that is not there; columns of which no format can be made.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if source.formatting is None:
        return _propose(source, columns, rows)
    spec = FORMATS[source.formatting]
    given = dict(source.columns) if source.columns is not None else None
    # As in LLaMA-Factory, naming one column leaves out every optional one that is not named.
    wanted = dict(spec.DEFAULTS) if given is None else {key: spec.DEFAULTS[key] for key in spec.REQUIRED} | given
    for key, column in wanted.items():
        if column not in columns and (key in spec.REQUIRED or given is not None):
            raise DataError(
                f"The data set {source.label} has no column {column!r} ({key} of format {source.formatting}). "
                f"Its columns: {listed(columns)}.{did_you_mean(column, columns)}"
            )
    used = {key: column for key, column in wanted.items() if column in columns and key in spec.DEFAULTS}
    return Reading(source.formatting, used, dict(source.tags), "as dataset_info.json says")


def _propose(source: Source, columns: list[str], rows: Sequence[Row]) -> Reading:
    if {"chosen", "rejected"} <= set(columns):
        raise DataError(
            f"The data set {source.label} holds preference pairs (chosen, rejected), which stage sft cannot "
            "learn from. Take a set of answers, or stage dpo once it is built."
        )
    optional: dict[str, str] = {key: key for key in ("system", "tools") if key in columns}
    for column in sorted(columns, key=lambda name: TURNS.index(name) if name in TURNS else len(TURNS)):
        keys = _turn_keys(rows, column)
        for name, spec in (("openai", openai), ("sharegpt", sharegpt)):
            marks = spec.TAGS["role_tag"], spec.TAGS["content_tag"]
            if marks[0] in keys:
                reason = f"column {column} holds turns with {marks[0]} and {marks[1]}"
                return Reading(name, {"messages": column, **optional}, {}, reason)
    question = next((name for name in QUESTIONS if name in columns), None)
    answer = next((name for name in ANSWERS if name in columns), None)
    if question and answer:
        used: dict[str, str] = {"prompt": question, "response": answer, **optional}
        if question != "input" and "input" in columns:
            used["query"] = "input"
        if "history" in columns:
            used["history"] = "history"
        return Reading("alpaca", used, {}, f"columns {question} and {answer}")
    if columns == ["text"] or (len(columns) == 1 and isinstance(rows[0][columns[0]], str)):
        raise DataError(
            f"The data set {source.label} holds plain text ({columns[0]}), which is for stage pt (not built "
            "yet). Stage sft needs questions and answers."
        )
    raise DataError(
        f"The data set {source.label} has the columns {listed(columns)}, which fit no known format. "
        "Expected messages, conversations, or instruction and output; or give it an entry with `columns` in "
        "dataset_info.json."
    )


def _turn_keys(rows: Sequence[Row], column: str) -> set[str]:
    """The keys of the turns in a column, where it holds lists of objects (or their JSON text)."""
    for row in rows:
        value: Any = row.get(column)
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                continue
        if isinstance(value, list) and value:
            return set(value[0]) if isinstance(value[0], dict) else set()
    return set()
