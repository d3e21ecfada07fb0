"""Selects the format of a data set, from its `dataset_info.json` entry or its columns."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from llf_core.config.declaration import FormatDeclaration, StageDeclaration
from llf_core.config.declarations.formats import ALPACA, OPENAI, SHAREGPT
from llf_core.config.did_you_mean import any_of, did_you_mean, listed
from llf_core.config.number_format import percent
from llf_core.config.registry import declared, stage_of
from llf_core.config.stage import StageSection
from llf_core.data.conversation import ANSWERS, DATA_KINDS, PAIRS, PROMPTS, TEXTS, UNPAIRED
from llf_core.data.errors import BadExample, DataError, OtherKindError
from llf_core.data.formats import DatasetFormat
from llf_core.data.media import KINDS
from llf_core.data.records import rename_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llf_core.config import RunConfig
    from llf_core.config.declaration import DataKind
    from llf_core.data.conversation import Conversation
    from llf_core.data.records import Row
    from llf_core.data.sources import Source

TURNS = ("messages", "conversations", "conversation", "chat", "dialogue", "dialog", "turns")
QUESTIONS = ("instruction", "prompt", "question", "query", "input", "problem")
ANSWER_COLUMNS = ("output", "response", "completion", "answer", "answers", "solution", "target")
VERDICTS = ("kto_tag", "label", "desirable")
TEXT_COLUMNS = ("text", "content", "document")
DEFAULT_STAGE: str = StageSection.model_fields["stage"].default
PEEK_ROWS = 100
LAYOUTS = ("instruction", "turns")


def stages_for(kind: DataKind) -> tuple[str, ...]:
    """Names of the stages that train on a kind of data: the default stage first, then those without options."""
    matching = [stage for stage in declared(StageDeclaration).values() if stage.data_kind == kind]
    simplest = sorted(matching, key=lambda stage: (stage.name != DEFAULT_STAGE, bool(stage.options.model_fields)))
    return tuple(stage.name for stage in simplest)


def formats(kind: DataKind) -> tuple[str, ...]:
    """Names of the formats that can contain a kind of data."""
    layouts = ("text",) if kind == TEXTS else LAYOUTS
    known = declared(FormatDeclaration)
    return tuple(name for layout in layouts for name, one in known.items() if one.layout == layout)


def format_of(name: str) -> FormatDeclaration:
    """Look up the declaration of a format by its name, such as `alpaca`, without importing its implementation."""
    return declared(FormatDeclaration)[name]


def roles(name: str, kind: DataKind) -> dict[str, bool]:
    """Column roles of a format for a kind of data, named as in `dataset_info.json`, and whether each is required."""
    spec = format_of(name)
    required = [role for role in spec.required if role != "response" or kind in {ANSWERS, UNPAIRED}]
    required += [*spec.ranked] if kind == PAIRS else ["kto_tag"] if kind == UNPAIRED else []
    others = [role for role in spec.columns if role not in required and role != "response"]
    return dict.fromkeys(required, True) | dict.fromkeys(others, False)


def wanted_kind(config: RunConfig) -> DataKind:
    """Kind of data that the stage of a config trains on: it decides how every data set of the config is read."""
    return stage_of(config).data_kind


@dataclass(frozen=True)
class Reading:
    """How the rows of a data set are converted to conversations.

    Attributes:
        format: name of a format, such as `alpaca`.
        columns: LLaMA-Factory's column names and the data set's.
        tags: LLaMA-Factory's tag names and the data set's.
        fits: share of the first rows that are valid.
        renames: keys of messages to rename, and their new names.
    """

    format: str
    columns: dict[str, str]
    tags: dict[str, str]
    reason: str
    kind: DataKind = ANSWERS
    fits: float = 1.0
    renames: tuple[tuple[str, str], ...] = ()

    def align(self, row: Row) -> Conversation:
        """Convert a row to a conversation. Media are not read, see `add_media`."""
        if self.renames:
            row = rename_fields(row, self.columns, dict(self.renames), self._all_tags)
        return self._reader.align(row, self.columns, self.tags)

    @cached_property
    def _all_tags(self) -> dict[str, str]:
        return {**(format_of(self.format).tags or OPENAI.tags), **self.tags}

    @cached_property
    def _reader(self) -> type[DatasetFormat]:
        return format_of(self.format).load(DatasetFormat)

    def text(self) -> str:
        """Describe the reading for a report: format, reason, and the share of rows that match if some do not."""
        fits = "" if self.fits == 1 else f"; {percent(self.fits)} of the first rows match"
        return f"{self.format} ({self.reason}{fits})"


def decide(source: Source, rows: Sequence[Row], kind: DataKind = ANSWERS) -> Reading:
    """Select the format of a data set: from its entry, else from the columns of its first rows.

    Args:
        rows: its first rows, at least one.

    Raises:
        DataError: a column of the entry does not exist, or no format matches the columns.
        OtherKindError: the data set contains another kind of data.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    reading = _propose(source, columns, rows, kind) if source.formatting is None else _named(source, columns, kind)
    if reading.kind != kind:
        raise other_kind(source, reading.kind, kind)
    good = sum(_reads(reading, row) for row in rows)
    return replace(reading, fits=good / len(rows))


def other_kind(source: Source, found_kind: DataKind, kind: DataKind) -> OtherKindError:
    """Create the error of a data set of another kind than the stage trains on. It names stages that would fit."""
    return OtherKindError(
        f"The data set {source.label} contains {DATA_KINDS[found_kind]}, for stage {any_of(stages_for(found_kind))}. "
        f"Stage {any_of(stages_for(kind))} needs {DATA_KINDS[kind]}.",
        found_kind,
    )


def kind_by_entry(source: Source, kind: DataKind) -> DataKind | None:
    """Kind of data that a `dataset_info.json` entry or `dataset_format` declares; None without one.

    If the declaration allows several kinds, it is `kind`, the one that the stage trains on.
    """
    return None if source.formatting is None else _kind_in_columns(source, dict(source.columns or ()), kind)


def _reads(reading: Reading, row: Row) -> bool:
    try:
        reading.align(row)
    except BadExample:
        return False
    return True


def _named(source: Source, columns: list[str], kind: DataKind) -> Reading:
    spec = format_of(str(source.formatting))
    given = dict(source.columns) if source.columns is not None else None
    found_kind = _kind_in_columns(source, given or {}, kind)
    if found_kind == TEXTS:
        spec = format_of("text")
        given = {"prompt": (given or {}).get("prompt", spec.columns["prompt"])}
    answered = found_kind not in {PAIRS, PROMPTS}
    required = {key: spec.columns[key] for key in spec.required if key != "response" or answered}
    if found_kind == PAIRS:
        required |= spec.ranked
    # As in LLaMA-Factory, naming one column leaves out every optional one that is not named.
    wanted = dict(spec.columns) | required if given is None else required | given
    if not answered:
        wanted.pop("response", None)
    # What only another kind of data has is not read, as in LLaMA-Factory.
    others = {*(() if found_kind == PAIRS else spec.ranked), *(() if found_kind == UNPAIRED else ("kto_tag",))}
    wanted = {key: column for key, column in wanted.items() if key not in others}
    for key, column in wanted.items():
        if column not in columns and (key in required or given is not None):
            raise DataError(
                f"The data set {source.label} has no column {column!r} ({key} of format {source.formatting}). "
                f"Its columns: {listed(columns)}.{did_you_mean(column, columns)}"
            )
    known = {*spec.columns, *spec.ranked, "kto_tag", *KINDS}
    used = {key: column for key, column in wanted.items() if column in columns and key in known}
    if found_kind == PROMPTS and spec.layout == "turns":
        used["prompt"] = used["messages"]
    return Reading(spec.name, used, dict(source.tags), f"as {source.described} says", found_kind)


def _kind_in_columns(source: Source, given: dict[str, str], kind: DataKind) -> DataKind:
    if kind == PROMPTS:  # every data set has prompts, except plain text
        return TEXTS if source.formatting == "text" else PROMPTS
    if source.ranking:
        return PAIRS
    if "kto_tag" in given and kind == UNPAIRED:
        return UNPAIRED
    if source.formatting == "text" or (kind == TEXTS and source.formatting == "alpaca" and "response" not in given):
        return TEXTS
    return ANSWERS


def _propose(source: Source, columns: list[str], rows: Sequence[Row], kind: DataKind) -> Reading:
    optional: dict[str, str] = {key: key for key in ("system", "tools") if key in columns}
    optional |= {key: name for key, kind in KINDS.items() for name in (kind, key) if name in columns}
    pairs = {"chosen", "rejected"} <= set(columns) and kind != PROMPTS
    verdict = _first(VERDICTS, columns) if kind == UNPAIRED else None
    found_kind = PAIRS if pairs else UNPAIRED if verdict else ANSWERS
    ends: dict[str, str] = dict(ALPACA.ranked) if pairs else {"kto_tag": verdict} if verdict else {}
    for column in _turn_columns(columns, pairs=pairs):
        keys = _turn_keys(rows, column)
        for spec in (OPENAI, SHAREGPT):
            marks = spec.tags["role_tag"], spec.tags["content_tag"]
            if marks[0] in keys:
                reason = f"column {column} holds turns with {marks[0]} and {marks[1]}"
                if kind == PROMPTS:
                    ends, found_kind = {"prompt": column}, PROMPTS
                return Reading(spec.name, {"messages": column, **optional, **ends}, {}, reason, found_kind)
    question, answer = _first(QUESTIONS, columns), _first(ANSWER_COLUMNS, columns)
    if question and (answer or pairs or kind == PROMPTS):
        used: dict[str, str] = {"prompt": question, **optional, **ends}
        if answer and not pairs and kind != PROMPTS:
            used["response"] = answer
        if question != "input" and "input" in columns:
            used["query"] = "input"
        if "history" in columns:
            used["history"] = "history"
        found = ["chosen and rejected"] if pairs else [answer] if "response" in used else []
        reason = f"columns {' and '.join([question, *map(str, found)])}" if found else f"column {question}"
        return Reading("alpaca", used, {}, reason, PROMPTS if kind == PROMPTS else found_kind)
    written = _first(TEXT_COLUMNS, columns) or (columns[0] if len(columns) == 1 else None)
    if written is not None and any(isinstance(row.get(written), str) for row in rows):
        return Reading("text", {"prompt": written}, {}, f"column {written} holds text", TEXTS)
    raise DataError(
        f"The data set {source.label} has the columns {listed(columns)}, which match no known format. "
        "Expected messages, conversations, or instruction and output; or say what each column holds with "
        "`dataset_format` and `dataset_columns`."
    )


def _first(names: Iterable[str], columns: list[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _turn_columns(columns: list[str], *, pairs: bool) -> list[str]:
    """Columns that may contain turns, likely ones first; for pairs without any other, `chosen`."""
    ends = {"chosen", "rejected"} if pairs else set()
    found = sorted(
        (name for name in columns if name not in ends),
        key=lambda name: TURNS.index(name) if name in TURNS else len(TURNS),
    )
    asks = any(name in columns for name in QUESTIONS)
    return found + (["chosen"] if pairs and not asks else [])


def _turn_keys(rows: Sequence[Row], column: str) -> set[str]:
    """Keys of the turns in a column of lists of objects, or of their JSON text."""
    for row in rows:
        value: object = row.get(column)
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                continue
        if isinstance(value, list) and value:
            return set(value[0]) if isinstance(value[0], dict) else set()
    return set()
