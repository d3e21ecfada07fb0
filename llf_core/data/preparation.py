"""Prepares the examples of a config, with a report: load → align → render → mask → truncate → pack."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

import llf_core.data.build as building
from llf_core.config.rules.conditions import joins_texts, packs_examples
from llf_core.config.rules.data import shares
from llf_core.data.align import wanted_kind
from llf_core.data.chat_template import NO_TEMPLATE, ChatTemplate, choose_template
from llf_core.data.conversation import TEXTS
from llf_core.data.example_store import (
    COUNT_COLUMNS,
    DONE_FILE,
    HASH_COLUMN,
    SET_COLUMN,
    cache_key,
    cached_folder,
    damaged_cache,
    drop_duplicates,
    open_examples,
    split_validation,
    tokenizer_hash,
    write_jsonl,
)
from llf_core.data.load import OpenedDataset, open_source
from llf_core.data.media import check_options
from llf_core.data.packing import PackedRows, first_token, pack, plan_blocks, write_blocks
from llf_core.data.report import DataReport, decode_row
from llf_core.data.sources import media_dir, sources_of
from llf_core.data.streaming import interleave_order

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.config.data import Data
    from llf_core.data.streaming import Stream
    from llf_core.runs import RunWriter

PREVIEW_EXAMPLES = 3


@dataclass(frozen=True)
class Prepared:
    """Data that is ready for training.

    Attributes:
        train: examples with `input_ids`, `labels`, `index`; or packed rows of examples; or a stream of either.
        eval: examples like those of `train`, never packed: the loss is the same, and a batch of
            `per_device_eval_batch_size` packed rows would need more memory than a training step.
        counts: `[examples, columns]`, int64, of the training examples, see `llf_core.data.example_store.COUNT_COLUMNS`.
        eval_counts: the same of the evaluation examples.
    """

    train: Dataset | PackedRows | Stream
    eval: Dataset | None
    report: DataReport
    template: ChatTemplate
    counts: NDArray[np.int64]
    eval_counts: NDArray[np.int64]

    def fill(self, cutoff: int) -> float:
        """Fraction of the packed rows' capacity that holds tokens. Not available for streamed data.

        An estimate if packing is off, and 0 for pairs, which are never packed.
        """
        if "rejected_ids" in self.examples.column_names:  # pairs are never packed
            return 0.0
        if isinstance(self.train, PackedRows):
            return self.train.filled
        return float(self.counts[:, 0].sum()) / (len(pack(self.counts[:, 0], cutoff)) * cutoff)

    @property
    def examples(self) -> Dataset:
        """The training examples, one by one even if they are packed; for streamed data the stream itself."""
        return self.train.examples if isinstance(self.train, PackedRows) else self.train


def prepare(  # noqa: PLR0913 - config, tokenizer and what reports progress
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    run: RunWriter | None = None,
    progress: Callable[[str, int], None] | None = None,
    peek: bool = False,
    processor: ProcessorMixin | None = None,
) -> Prepared:
    """Prepare the data of a config, or open it from the cache if data and settings are unchanged.

    Args:
        run: receives an event `data` unless the data is streamed, warnings, and an event `progress` every two seconds.
        progress: called with a data set's name and the number of rows read so far, at most every two seconds.
        peek: for streamed data sets, prepare at most the first `buffer_size` records of each, for inspection.

    Returns:
        The examples and the report. Streamed data sets give a `Stream`, whose report grows while it is read.
    """
    data = config.data
    template = template_of(config, tokenizer)
    folders = () if run is None else (run.folder.path,)
    names = data.dataset or ()
    opened = _open(config, (*names, *(data.eval_dataset or ())), folders)  # together, so that no two share a label
    train, evaluation = opened[: len(names)], opened[len(names) :]
    settings = building.EncodingSettings.of(config)
    if processor is not None:
        check_options(processor, settings.limits)
    if data.streaming and peek:
        settings = replace(settings, max_samples=peeked_records(data))
    reporter = building.ProgressReporter(run, progress)
    builder = building.Builder(settings, tokenizer, template, reporter, processor, media_dir(config))
    if data.streaming and not peek:
        streamed = _streamed(config, builder, train, evaluation)
        if run is not None:
            _warn_about_template(run, streamed.report)
        return streamed
    folder, report = _built(builder, train, evaluation, rebuild=data.overwrite_cache)
    if data.stop_on_dropped:
        report.check_all_used()
    ready = _ready(folder, replace(report, streamed=data.streaming), config, tokenizer, template)
    if run is not None:
        write_report_events(run, ready.report)
        _warn_about_template(run, ready.report)
        training = config.training
        step = training.per_device_train_batch_size * training.gradient_accumulation_steps * config.launch.ranks
        warning = ready.train.one_step_warning(step) if isinstance(ready.train, PackedRows) else None
        if warning:
            run.event("warning", key="packing", message=warning)
    return ready


def peeked_records(data: Data) -> int:
    """Maximum number of records of each streamed data set that an inspection reads: `max_samples` or `buffer_size`."""
    limit: int = min(data.max_samples or data.buffer_size, data.buffer_size)
    return limit


def write_report_events(run: RunWriter, report: DataReport) -> None:
    """Write the counts of a run's data to its events, for views and the doctor, and a warning about broken lines."""
    run.event("data", **report.counts())
    warning = report.broken_lines_warning()
    if warning:
        run.event("warning", key="dataset", message=warning)


def _warn_about_template(run: RunWriter, report: DataReport) -> None:
    if report.template_warnings:
        run.event("warning", key="template", message=" ".join(report.template_warnings))


def _built(
    builder: building.Builder, train: list[OpenedDataset], evaluation: list[OpenedDataset], *, rebuild: bool
) -> tuple[Path, DataReport]:
    sight: dict[str, object] = {}
    if builder.processor is not None:
        limits = asdict(builder.settings.limits)
        sight = {"sees": _sight(builder.processor), "media": str(builder.media_dir), "limits": limits}
    key = cache_key(
        {
            **sight,
            "train": [one.identity() for one in train],
            "evaluation": [one.identity() for one in evaluation],
            "tokenizer": tokenizer_hash(builder.tokenizer),
            "template": [
                builder.template.jinja,
                builder.template.marked,
                builder.template.options,
                *builder.template.turn_ends,
            ],
            "settings": builder.settings.key(),
        }
    )
    folder, cached = cached_folder(key, lambda empty: builder.build(empty, train, evaluation), rebuild=rebuild)
    try:
        report = DataReport.from_json(json.loads((folder / DONE_FILE).read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged_cache(folder / DONE_FILE, error) from None
    return folder, replace(report, cached=cached)


def _sight(processor: ProcessorMixin) -> list[str]:
    """Settings of a processor that determine the number of tokens of an image."""
    parts = (getattr(processor, name, None) for name in ("image_processor", "video_processor", "feature_extractor"))
    return [str(processor.to_json_string()), *(part.to_json_string() for part in parts if part is not None)]


def _streamed(
    config: RunConfig, builder: building.Builder, train: list[OpenedDataset], evaluation: list[OpenedDataset]
) -> Prepared:
    """Open data sets that are read during training; evaluation data is prepared before."""
    from datasets import Dataset

    from llf_core.data.streaming import Stream, StreamedDataset, to_row

    held = int(config.data.val_size)
    report, examples = DataReport(template=builder.template.name), None
    if evaluation:
        folder, report = _built(builder, [], evaluation, rebuild=config.data.overwrite_cache)
        examples, _ = open_examples(folder / building.EVAL)
    text = json.dumps([one.identity() for one in train], default=str)
    report = replace(report, streamed=True, cached=False, fingerprint=hashlib.sha256(text.encode()).hexdigest())
    sets = [StreamedDataset(one, builder.peek(one, report)) for one in train]
    stream = Stream(sets, config, report, held)
    if held:
        examples = Dataset.from_list([to_row(one) for one in stream.cut(islice(stream.in_order(), held))])
    if examples is not None:
        report.eval_examples = len(examples)
    report.preview = [
        decode_row(builder.tokenizer, to_row(one))
        for one in islice(stream.cut(islice(stream.in_order(), held, held + PREVIEW_EXAMPLES)), PREVIEW_EXAMPLES)
    ]
    empty = np.zeros((0, len(COUNT_COLUMNS)), dtype=np.int64)
    return Prepared(stream, examples, report, builder.template, empty, empty)


def dump_examples(prepared: Prepared, path: Path) -> None:
    """Write every example as a JSON line: training examples, then evaluation examples.

    A line has `index` (0-based index of the record in its data set), `input_ids`, `labels`, and `split` (`train` or
    `eval`). Of a pair it has the chosen answer only.
    """
    with open(path, "w", encoding="utf-8", opener=_without_waiting) as file:
        write_jsonl(prepared.examples, file, split="train")
        if prepared.eval is not None:
            write_jsonl(prepared.eval, file, split="eval")


def _without_waiting(path: str, flags: int) -> int:
    """Open a file without blocking on a named pipe that has no reader."""
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(descriptor, True)
    return descriptor


def template_of(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """Choose the template of a config. Plain text needs none."""
    data = config.data
    if data.template is None and not tokenizer.chat_template and wanted_kind(config) == TEXTS:
        return ChatTemplate(NO_TEMPLATE, "")
    return choose_template(
        data.template,
        tokenizer,
        enable_thinking=data.enable_thinking,
        preserve_thinking=data.preserve_thinking,
        tool_format=data.tool_format,
    )


def _open(config: RunConfig, names: tuple[str, ...], folders: tuple[Path, ...]) -> list[OpenedDataset]:
    found = sources_of(config, names, folders)
    return [open_source(source, config.model.cache_dir, streaming=config.data.streaming) for source in found]


def _ready(
    folder: Path,
    report: DataReport,
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
) -> Prepared:
    examples, counts = open_examples(folder / building.TRAIN)
    size, seed = config.data.val_size, config.training.seed
    if config.data.drop_duplicates:
        kept = drop_duplicates(counts[:, HASH_COLUMN])
        report = replace(report, copies=len(counts) - len(kept))
        examples, counts = examples.select(kept), counts[kept]
    evaluation: Dataset | None = None
    held_counts = counts[:0]
    if (folder / building.EVAL).is_file():
        evaluation, held_counts = open_examples(folder / building.EVAL)
    elif size:
        kept, held = split_validation(counts[:, HASH_COLUMN], size, seed)
        evaluation, held_counts = examples.select(held), counts[held]
        examples, counts = examples.select(kept), counts[kept]
    order = interleave_order(
        counts[:, SET_COLUMN], config.data.mix_strategy, shares(config.data.interleave_probs) or (), seed
    )
    if config.data.mix_strategy != "concat":
        examples, counts = examples.select(order), counts[order]
    report = replace(
        report,
        leaked=int(np.isin(held_counts[:, HASH_COLUMN], counts[:, HASH_COLUMN]).sum()),
        repeated=len(counts) - len(drop_duplicates(counts[:, HASH_COLUMN])),
    )
    if joins_texts(config):
        texts, tokens = len(examples), int(counts[:, 0].sum())
        examples, counts = _joined(
            folder, building.TRAIN, examples, counts, config, tokenizer, rebuild=not report.cached
        )
        if evaluation is not None:
            evaluation, held_counts = _joined(
                folder, building.EVAL, evaluation, held_counts, config, tokenizer, rebuild=not report.cached
            )
        report = replace(report, joined=texts, left_out=tokens - int(counts[:, 0].sum()))
    first: list[dict[str, object]] = [examples[place] for place in range(min(PREVIEW_EXAMPLES, len(examples)))]
    report = replace(
        report,
        examples=len(examples),
        eval_examples=0 if evaluation is None else len(evaluation),
        tokens=int(counts[:, 0].sum()),
        trained_tokens=int(counts[:, 1].sum()),
        preview=[decode_row(tokenizer, row) for row in first],
    )
    if not packs_examples(config):
        return Prepared(examples, evaluation, report, template, counts, held_counts)
    packed = PackedRows.of(examples, counts[:, 0], config.data.cutoff_len, seed)
    report = replace(report, rows=len(packed), row_capacity=packed.capacity, packing_fill=packed.filled)
    return Prepared(packed, evaluation, report, template, counts, held_counts)


def _joined(  # noqa: PLR0913, PLR0917 - the texts, and what is made of them
    folder: Path,
    name: str,
    texts: Dataset,
    counts: NDArray[np.int64],
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    rebuild: bool,
) -> tuple[Dataset, NDArray[np.int64]]:
    """Blocks of texts, from the cache if the same texts were joined in the same way."""
    data, first = config.data, first_token(tokenizer)
    plan = plan_blocks(counts[:, 0], data.cutoff_len, data.preprocessing_num_workers)
    order = hashlib.sha256(np.ascontiguousarray(counts).tobytes()).hexdigest()

    def make(empty: Path) -> None:
        write_blocks(empty / name, texts, counts, plan, first)
        (empty / DONE_FILE).write_text("{}", encoding="utf-8")

    key = cache_key({"texts": folder.name, "of": name, "order": order, "plan": plan, "first": first})
    return open_examples(cached_folder(key, make, rebuild=rebuild)[0] / name)
