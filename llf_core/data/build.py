"""Builds a folder of examples and a report from opened data sets, in this process or in worker processes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.rules.conditions import joins_texts
from llf_core.data.align import PEEK_ROWS, decide, wanted_kind
from llf_core.data.chat_template import OWN_TEMPLATE
from llf_core.data.conversation import PROMPTS, TEXTS
from llf_core.data.encoder import Encoder
from llf_core.data.errors import DataError
from llf_core.data.example_store import DONE_FILE, ExampleWriter
from llf_core.data.load import read_source
from llf_core.data.media import KINDS, PREFIX_ATTENTION
from llf_core.data.media_files import DEFAULT_LIMITS, MediaLimits
from llf_core.data.records import BrokenLine, Record, renames_of
from llf_core.data.report import Broken, DataReport, SetCounts
from llf_core.data.template_check import difference_from_own, template_check
from llf_core.data.template_facts import find_template
from llf_core.data.word_cache import CachedTokenizer
from llf_core.launch.environment import usable_cpus
from llf_core.runs.writer import ProgressEvents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.config.declaration import DataKind
    from llf_core.data.align import Reading
    from llf_core.data.chat_template import ChatTemplate
    from llf_core.data.encoder import RenderedRows
    from llf_core.data.errors import BadExample
    from llf_core.data.example_store import Chunk
    from llf_core.data.label_mask import Encoded
    from llf_core.data.load import OpenedDataset
    from llf_core.data.records import RecordOrBroken
    from llf_core.data.template_check import Field
    from llf_core.runs import RunWriter

TRAIN, EVAL = "train.arrow", "eval.arrow"


@dataclass(frozen=True)
class EncodingSettings:
    """The config's settings that determine the examples.

    Attributes:
        cutoff_strategy: `cut`, `drop` or `split`.
        joins: whether texts are joined, see `llf_core.data.packing`.
        mask_history: whether the loss includes only the last answer.
        default_system: system prompt of conversations without one; None leaves it to the template.
        rename_fields: keys of messages to rename, and their new names.
        max_samples: maximum number of records of each data set; None for all.
        seed: random seed of the sampling by `num_samples`.
        workers: maximum number of processes; None for this process only.
        split_special_tokens: whether special tokens in the records' texts are read as plain text.
    """

    cutoff_len: int
    cutoff_strategy: str
    joins: bool
    train_on_prompt: bool
    mask_history: bool
    default_system: str | None
    rename_fields: tuple[tuple[str, str], ...]
    max_samples: int | None
    seed: int
    kind: DataKind
    workers: int | None
    split_special_tokens: bool = False
    limits: MediaLimits = DEFAULT_LIMITS

    @classmethod
    def of(cls, config: RunConfig) -> EncodingSettings:
        """Take the settings from a config."""
        data = config.data
        return cls(
            cutoff_len=data.cutoff_len,
            cutoff_strategy=data.cutoff_strategy,
            joins=joins_texts(config),
            train_on_prompt=data.train_on_prompt,
            mask_history=data.mask_history,
            default_system=data.default_system,
            rename_fields=renames_of(config),
            max_samples=data.max_samples,
            seed=config.training.seed,
            kind=wanted_kind(config),
            workers=data.preprocessing_num_workers,
            split_special_tokens=data.split_special_tokens,
            limits=MediaLimits.of(config),
        )

    def key(self) -> dict[str, object]:
        """Settings that determine the examples, by name. The key of a multimodal model adds the limits of media."""
        return {name: value for name, value in asdict(self).items() if name not in {"workers", "limits"}}


class ProgressReporter:
    """Reports the number of rows of each data set every two seconds, as events of the run and to a callback."""

    def __init__(self, run: RunWriter | None, progress: Callable[[str, int], None] | None) -> None:
        self._under_way = ProgressEvents(run, "data")
        self._progress = progress

    def __call__(self, dataset: str, rows: int) -> None:
        """Report the number of prepared rows of a data set."""
        if self._under_way(rows, dataset=dataset) and self._progress is not None:
            self._progress(dataset, rows)


@dataclass(frozen=True)
class Builder:
    """Builds the examples of data sets. Relative paths of media begin at `media_dir`."""

    settings: EncodingSettings
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    progress: ProgressReporter
    processor: ProcessorMixin | None = None
    media_dir: Path = Path()

    def build(self, folder: Path, train: list[OpenedDataset], evaluation: list[OpenedDataset]) -> None:
        """Write `train.arrow` and `eval.arrow`, each if it has data sets, and last `report.json`.

        Raises:
            DataError: a data set cannot be read, contains another kind of data (`OtherKindError`), does not fit the
                model or yields no example; the tokenizer fails on a text; or the chat template exceeds its limits.
        """
        report = DataReport(template=self.template.name)
        digest = hashlib.sha256()
        for name, sets in ((TRAIN, train), (EVAL, evaluation)):
            if not sets:
                continue
            with ExampleWriter(folder / name, self.settings.kind, multimodal=self.processor is not None) as writer:
                for number, opened in enumerate(sets):
                    self._add(opened, number, writer, report, digest)
            if not writer.count:
                raise report.no_examples_error([opened.source.label for opened in sets])
        report.fingerprint = digest.hexdigest()
        text = json.dumps(report.json(), ensure_ascii=False)
        (folder / DONE_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")

    def peek(self, opened: OpenedDataset, report: DataReport) -> Encoder:
        """Create the encoder of a data set from its first `PEEK_ROWS` records, and report how it is read."""
        read = read_source(opened, self.settings.max_samples, self.settings.seed)
        peeked = list(islice(skip_broken(read, opened.source.label, []), PEEK_ROWS))
        encoder = self.encoder(self._decide(opened, peeked, report))
        self.check_template(report, encoder, encoder.render(peeked)[0].fields)
        return encoder

    def _decide(self, opened: OpenedDataset, peeked: list[Record], report: DataReport) -> Reading:
        name = opened.source.label
        if not peeked:
            raise report.no_examples_error([name])
        reading = decide(opened.source, [record.row for record in peeked], self.settings.kind)
        report.readings[name] = reading.text()
        media = [column for role, column in reading.columns.items() if role in KINDS]
        if media and self.processor is None:
            raise DataError(
                f"The data set {name} has images, videos or audio (column {', '.join(media)}), and the model takes "
                "only text. Use a multimodal model, or name only the other columns in dataset_columns to train without "
                "them."
            )
        if self.settings.kind == PROMPTS and type(self.processor).__name__ in PREFIX_ATTENTION:
            raise DataError(
                "The model reads its prompt in both directions, which stages that sample completions do not support. "
                "Train it with stage sft or dpo."
            )
        return reading

    def encoder(self, reading: Reading) -> Encoder:
        """Create the encoder for a data set's records."""
        settings = self.settings
        if settings.split_special_tokens and self.processor is not None:
            raise DataError(
                "split_special_tokens is for models of text: the processor of this model tokenizes its texts itself. "
                "Set split_special_tokens: false."
            )
        return Encoder(
            tokenizer=self.tokenizer,
            template=self.template,
            reading=replace(reading, renames=settings.rename_fields),
            cutoff_len=settings.cutoff_len,
            train_on_prompt=settings.train_on_prompt,
            mask_history=settings.mask_history,
            default_system=settings.default_system,
            cutoff_strategy=settings.cutoff_strategy,
            joins=settings.joins,
            kind=settings.kind,
            processor=self.processor,
            media_dir=self.media_dir,
            split_special_tokens=settings.split_special_tokens,
            limits=settings.limits,
        )

    def check_template(self, report: DataReport, encoder: Encoder, fields: Iterable[Field]) -> None:
        """Note in the report how the chat template fits a data set, see `template_check`; plain text needs no template.

        Args:
            fields: fields of its conversations, see `llf_core.data.template_check.fields_of`.
        """
        if self.settings.kind == TEXTS:
            return
        found = template_check(self.template, self.tokenizer, fields, as_parts=encoder.takes_parts)
        if self.settings.kind == PROMPTS:
            found = replace(found, stop=None)
        report.note_template(found)
        known = find_template(self.template.jinja) if self.template.name == OWN_TEMPLATE else None
        if known is not None:
            report.add_template_note(f"The tokenizer's chat template is that of {known.family}.")
        for end in sorted({*self.template.turn_ends} - {""}):
            report.add_template_note(
                f"The chat template ({self.template.name}) writes {end} only once the next turn follows, and "
                "generation ends at it: it is trained at the end of each response."
            )
        if self.template.marked and self.tokenizer.chat_template:
            report.add_template_note(difference_from_own(self.template, self.tokenizer))

    def _add(
        self, opened: OpenedDataset, number: int, writer: ExampleWriter, report: DataReport, digest: hashlib._Hash
    ) -> None:
        name, settings, lines = opened.source.label, self.settings, len(report.broken)
        read = read_source(opened, settings.max_samples, settings.seed)
        found = skip_broken(read, name, report.broken)
        peeked = list(islice(found, PEEK_ROWS))
        encoder = self.encoder(self._decide(opened, peeked, report))
        rows, before = 0, writer.totals()
        fields: set[Field] = set()
        for chunk in encode_all(encoder, chain(peeked, found), settings.workers):
            writer.write(chunk.examples, number)
            report.note(name, chunk.examples, chunk.dropped)
            fields |= chunk.fields
            for row in chunk.digests:
                digest.update(row)
            rows += chunk.rows
            self.progress(name, rows)
        kept, tokens, learned = (now - then for now, then in zip(writer.totals(), before, strict=True))
        self.check_template(report, encoder, fields)
        records = rows + len(report.broken) - lines
        report.sets.append(SetCounts(name, records, kept, tokens, learned, opened.unit))


def skip_broken(read: Iterable[RecordOrBroken], name: str, broken: list[Broken]) -> Iterator[Record]:
    """Yield the readable records and collect broken lines."""
    for entry in read:
        if isinstance(entry, BrokenLine):
            broken.append(Broken(entry.line, entry.reason, name, entry.index))
        else:
            yield entry


CHUNK_ROWS, CHUNK_CHARACTERS = 4000, 8_000_000
"""Maximum size of a chunk. Larger chunks reuse more tokenized words; the result must fit into memory."""

QUEUED_CHUNKS = 2
"""Chunks queued for each worker, so that none is idle and memory is bounded."""

SERIAL_CHUNKS = 50
"""Chunks that this process encodes before workers are started, which take seconds to load the tokenizer."""


def chunks_of(records: Iterable[Record], size: int = CHUNK_ROWS) -> Iterator[list[Record]]:
    """Group records into chunks, large enough to share tokenized words and small enough for memory."""
    group: list[Record] = []
    characters = 0
    for record in records:
        group.append(record)
        characters += _size(record.row)
        if len(group) == size or characters >= CHUNK_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return 1
    return sum(map(_size, value))


def encode_all(encoder: Encoder, records: Iterable[Record], workers: int | None = None) -> Iterator[Chunk]:
    """Encode records chunk by chunk, in order.

    Args:
        workers: maximum number of processes; None or 1 for this process only. There are never more than usable cores.

    Raises:
        DataError: the chat template exceeds its limits, the texts cannot be tokenized, special tokens are to be split
            by a slow tokenizer, or a process ended before it was done.
    """
    groups = chunks_of(records)
    count = min(workers or 1, usable_cpus())
    if count == 1:
        yield from _side_by_side(encoder, groups)
        return
    yield from _side_by_side(encoder, islice(groups, SERIAL_CHUNKS))
    first = next(groups, None)
    if first is None:
        return
    groups = chain([first], groups)
    # A forked child of a process with torch's threads may hang, so the workers start afresh.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, spawn, _Work.set, (replace(encoder),))
    waiting: deque[Future[Chunk]] = deque()
    try:
        for group in groups:
            waiting.append(pool.submit(_Work.do, group))
            if len(waiting) > count * QUEUED_CHUNKS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            "A process that encodes the data ended before it was done, as where the system ends it for lack of memory. "
            f"Lower preprocessing_num_workers ({workers}), or free memory, and start again."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _side_by_side(encoder: Encoder, groups: Iterable[list[Record]]) -> Iterator[Chunk]:
    """Tokenize a chunk in a second thread while this one renders the next; a fast tokenizer releases the GIL."""
    if isinstance(encoder.library, CachedTokenizer):
        for group in groups:
            yield encoder.encode(group)
        return
    with ThreadPoolExecutor(1, "tokenize") as pool:
        waiting: tuple[Chunk, RenderedRows, Future[list[Encoded | BadExample]]] | None = None
        for group in groups:
            chunk, rendered_rows = encoder.render(group)
            tokens = pool.submit(encoder.tokenize, rendered_rows)
            if waiting is not None:
                yield encoder.finish(waiting[0], waiting[1], waiting[2].result())
            waiting = chunk, rendered_rows, tokens
        if waiting is not None:
            yield encoder.finish(waiting[0], waiting[1], waiting[2].result())


class _Work:
    """State of a worker process: the encoder is sent once, not with every chunk."""

    encode: Callable[[list[Record]], Chunk]

    @classmethod
    def set(cls, encoder: Encoder) -> None:
        cls.encode = encoder.encode

    @classmethod
    def do(cls, group: list[Record]) -> Chunk:
        return cls.encode(group)
