"""The evaluation examples of a run as conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.data.build import Builder, EncodingSettings, ProgressReporter, skip_broken
from llf_core.data.errors import DataError
from llf_core.data.example_store import SET_COLUMN
from llf_core.data.formats.conversation import TEXTS
from llf_core.data.load import open_source, read_source
from llf_core.data.preparation import prepare, template_of
from llf_core.data.report import DataReport
from llf_core.data.sources import media_dir, sources_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.data.formats.conversation import Conversation
    from llf_core.data.records import Row


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
