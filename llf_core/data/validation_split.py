"""The evaluation examples of a run as conversations, and prompts with all columns of their records."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.number_format import with_unit
from llf_core.data.align import PEEK_ROWS, decide, wanted_kind
from llf_core.data.build import Builder, EncodingSettings, ProgressReporter, skip_broken
from llf_core.data.conversation import TEXTS, cell_of
from llf_core.data.errors import BadExample, DataError
from llf_core.data.example_store import COUNT_COLUMNS, SET_COLUMN
from llf_core.data.load import open_source, read_source
from llf_core.data.preparation import prepare, template_of
from llf_core.data.report import DataReport
from llf_core.data.sources import media_dir, sources_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.data.align import Reading
    from llf_core.data.conversation import Conversation
    from llf_core.data.preparation import Prepared
    from llf_core.data.records import Row
    from llf_core.data.sources import Source


def validation_conversations(
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None = None,
    processor: ProcessorMixin | None = None,
) -> list[Conversation]:
    """Read the conversations of a config's evaluation examples, with its system prompt and their answers.

    Args:
        limit: maximum number of conversations, taken from the beginning; None for all.

    Raises:
        DataError: there are no evaluation examples, they are plain text, or they are streamed.
    """
    data = config.data
    if not (data.eval_dataset or data.val_size):
        raise DataError("The run has no validation data. Pass prompts, or set eval_dataset or val_size.")
    if data.streaming:
        raise DataError("The run streamed its data, so its validation data is not stored. Pass prompts.")
    if EncodingSettings.of(config).kind == TEXTS:
        raise DataError("The validation data of the run is plain text without prompts. Pass prompts.")
    prepared = prepare(config, tokenizer, processor=processor)
    assert prepared.eval is not None  # noqa: S101 - for the type checker
    sets = prepared.eval_counts[:, SET_COLUMN].tolist()
    places = list(dict.fromkeys(zip(sets, prepared.eval["index"], strict=True)))[:limit]
    found = conversations_at(config, tokenizer, data.eval_dataset or data.dataset or (), places, processor)
    return [found[place][0] for place in places]


def conversations_at(
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    places: Iterable[tuple[int, int]],
    processor: ProcessorMixin | None = None,
) -> dict[tuple[int, int], tuple[Conversation, Row]]:
    """Read prepared records again, as conversations with the config's system prompt, and their rows.

    A record that is no longer there or can no longer be used is missing.

    Args:
        places: number of the data set in `names` and index of the record, of each.
        processor: processor by which they were prepared; None for a model of text.
    """
    builder = Builder(
        EncodingSettings.of(config),
        tokenizer,
        template_of(config, tokenizer),
        ProgressReporter(None, None),
        processor,
        media_dir(config),
    )
    return dict(_conversations(config, builder, tuple(names), set(places)))


def _conversations(
    config: RunConfig, builder: Builder, names: tuple[str, ...], places: set[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], tuple[Conversation, Row]]]:
    for number, source in enumerate(sources_of(config, names)):
        wanted = {index for one, index in places if one == number}
        if not wanted:
            continue
        opened = open_source(source, config.model.cache_dir)
        encoder = builder.peek(opened, DataReport())
        read = read_source(opened, builder.settings.max_samples, builder.settings.seed)
        for record in skip_broken(read, source.label, []):
            if record.index in wanted:
                wanted.discard(record.index)
                _, rendered_rows = encoder.render([record])
                if rendered_rows:
                    yield (number, record.index), (rendered_rows[0][1], record.row)
            if not wanted:
                break


TOKENS, WHOLE = COUNT_COLUMNS.index("tokens"), COUNT_COLUMNS.index("whole")
ASKED = "asked"

EXPECTED = ("answer", "solution", "answers", "ground_truth", "target", "output", "response", "completion")
"""Columns that may contain the reference answer, the most likely first."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of a config.

    Attributes:
        train: prompts to train on, see `prompts_of`.
        columns: columns of the records of all training data sets.
        left_out: sentence about prompts that are left out; empty if there are none.
        places: for each row of `train`, its position among the prepared examples.
        eval_places: the same for `eval`.
    """

    train: Dataset
    eval: Dataset | None
    columns: tuple[str, ...]
    left_out: str
    places: tuple[int, ...] = ()
    eval_places: tuple[int, ...] = ()


def prompts_of(config: RunConfig, prepared: Prepared, folders: Sequence[Path] = ()) -> Prompts:
    """Read the prompts of prepared data, in its order. Those above `cutoff_len` and those with tools are left out.

    A row is `{"prompt": [{"role", "content"}, …], "row": {column: value}, "expected": text or None}`: the conversation
    before the answer, with the config's system prompt, the record, and its reference answer. Values without a JSON
    type, such as dates, become text.

    Args:
        prepared: result of `prepare`; not streamed.
        folders: folders to search for relative paths, besides the working directory.
    """
    data = config.data
    train = _Reader(config, data.dataset or (), folders)
    rows, places = train.rows(prepared.examples, prepared.counts)
    held, other = None, train
    eval_places: tuple[int, ...] = ()
    if prepared.eval is not None:
        other = _Reader(config, data.eval_dataset, folders) if data.eval_dataset else train
        held, eval_places = other.rows(prepared.eval, prepared.eval_counts)
    left_out = (train.dropped_text() + ("" if other is train else other.dropped_text())).strip()
    if not len(rows) or (held is not None and not len(held)):
        raise DataError(f"No prompts remain. {left_out}")
    return Prompts(rows, held, tuple(train.columns), left_out, places, eval_places)


class _Reader:
    def __init__(self, config: RunConfig, names: tuple[str, ...], folders: Sequence[Path]) -> None:
        self.columns: dict[str, None] = {}
        self._config = config
        self._sources = sources_of(config, names, tuple(folders))
        self._long = self._tools = 0

    def dropped_text(self) -> str:
        """Sentences about the prompts that are left out."""
        long = f"more than cutoff_len {self._config.data.cutoff_len:,} tokens"
        tools = "tools, which are not supported yet,"
        return _dropped(self._long, "has", "have", long) + _dropped(self._tools, "uses", "use", tools)

    def rows(self, examples: Dataset, counts: NDArray[np.int64]) -> tuple[Dataset, tuple[int, ...]]:
        """The prompts of some examples, and the positions of these examples."""
        from datasets import Dataset

        texts: dict[tuple[int, int], str | None] = {}
        index = np.asarray(examples["index"], dtype=np.int64)
        for number, source in enumerate(self._sources):
            wanted = set(index[counts[:, SET_COLUMN] == number].tolist())
            texts |= {(number, place): text for place, text in self._read(source, wanted).items()}
        short = counts[:, TOKENS] == counts[:, WHOLE]
        places = zip(counts[:, SET_COLUMN].tolist(), index.tolist(), short.tolist(), strict=True)
        found = [texts[number, place] if fits else "" for number, place, fits in places]
        self._long += found.count("")
        self._tools += found.count(None)
        kept = Dataset.from_dict({ASKED: [text for text in found if text]})
        return kept.with_transform(_decoded), tuple(place for place, text in enumerate(found) if text)

    def _read(self, source: Source, wanted: set[int]) -> dict[int, str | None]:
        """Prompts by record index; None for a prompt with tools."""
        config = self._config
        opened = open_source(source, config.model.cache_dir)
        records = skip_broken(read_source(opened, config.data.max_samples, config.training.seed), source.label, [])
        peeked = list(islice(records, PEEK_ROWS))
        reading = decide(source, [record.row for record in peeked], wanted_kind(config))
        answers = _Answers.of(source, reading)
        found: dict[int, str | None] = {}
        for record in chain(peeked, records):
            if record.index in wanted:
                self.columns.update(dict.fromkeys(record.row))
                try:
                    conversation = reading.align(record.row)
                except BadExample:  # the record has changed since it was prepared
                    continue
                expected = answers.find(record.row)
                found[record.index] = None if conversation.tools else self._text(conversation, record.row, expected)
        return found

    def _text(self, conversation: Conversation, row: Mapping[str, object], expected: str | None) -> str:
        messages = list(conversation.messages)
        system = self._config.data.default_system
        if system is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": system})
        return json.dumps({"prompt": messages, "row": dict(row), "expected": expected}, ensure_ascii=False, default=str)


def _dropped(count: int, verb: str, plural: str, what: str) -> str:
    if not count:
        return ""
    has, is_ = (verb, "is") if count == 1 else (plural, "are")
    return f"{with_unit(count, 'prompt')} {has} {what} and {is_} dropped. "


@dataclass(frozen=True)
class _Answers:
    """Reference answers of a data set: in one of some columns, the most likely first, or in the last message."""

    columns: tuple[str, ...]
    reading: Reading | None

    @classmethod
    def of(cls, source: Source, reading: Reading) -> _Answers:
        known = dict(source.columns or ()).get("response")
        whole = {key: column for key, column in reading.columns.items() if key != "prompt"}
        talk = replace(reading, columns=whole) if "messages" in reading.columns else None
        return cls(EXPECTED if known is None else (known, *EXPECTED), talk)

    def find(self, row: Mapping[str, object]) -> str | None:
        """The reference answer of a record."""
        for name in self.columns:
            value = cell_of(row, {name: name}, name)
            if isinstance(value, list) and value:
                value = value[0]
            if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
                return str(value)
        with suppress(BadExample):  # its messages end with a question
            return None if self.reading is None else str(self.reading.align(dict(row)).messages[-1]["content"])
        return None


def _decoded(batch: dict[str, list[str]]) -> dict[str, list[object]]:
    """Parse rows, which are stored as JSON since Arrow would give all of them the same fields."""
    rows = [json.loads(text) for text in batch[ASKED]]
    return {key: [row[key] for row in rows] for key in ("prompt", "row", "expected")}
