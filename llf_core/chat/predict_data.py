"""The prompts of a data set with their reference responses, for batch prediction."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from llf_core.data.align import decide, wanted_kind
from llf_core.data.build import PEEK_ROWS, skip_broken
from llf_core.data.errors import BadExample, DataError
from llf_core.data.formats.conversation import answer_text
from llf_core.data.load import open_source, read_source
from llf_core.data.prepare import sources_of
from llf_core.data.validation_split import validation_conversations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.config import RunConfig
    from llf_core.data.formats.conversation import Conversation
    from llf_core.data.source import Source


@dataclass(frozen=True)
class PredictPrompt:
    """A prompt of a data set.

    Attributes:
        messages: the conversation before the last response, in OpenAI's form.
        tools: functions that may be called.
        label: the last response of the record: its text, or its calls as JSON.
    """

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    label: str


def read_predict_prompts(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[list[PredictPrompt], int]:
    """Read the prompts to predict, with the responses that are expected: those that training has not seen, if any.

    They are the validation split if the config has one (`val_size`), else all records of `dataset`, of each data set at
    most `max_samples`.

    Args:
        config: the config.
        tokenizer: tokenizer of the model, by which the validation split is made; else it is not used.

    Returns:
        The prompts in the order of the data, and the number of unusable records (0 for a validation split).

    Raises:
        DataError: a data set is missing, has no usable record or another kind of data, or has pictures or sound.
        UnreadableError: a data set of `Dataset.save_to_disk` or the cache's lock is a link or not a regular file.
        OSError: a file cannot be read, or the cache cannot be written.
        KeyError: a record is no longer in its data set.
        PluginError: the implementation of a format cannot be imported, or two installed packages declare the same
            plug-in.
        MemoryError: out of memory.
    """
    if config.data.val_size:
        return [_prompt(one) for one in validation_conversations(config, tokenizer)], 0
    found: list[PredictPrompt] = []
    unusable = 0
    for source in sources_of(config, config.data.dataset or ()):
        for conversation in _conversations(config, source):
            if conversation is None:
                unusable += 1
            else:
                found.append(_prompt(conversation))
    if not found:
        raise DataError("No record of the data is usable. `llf inspect` says why.")
    return found, unusable


def digest_of(prompts: Sequence[PredictPrompt]) -> str:
    """SHA-256 of prompts in hexadecimal digits, by which a continued prediction tells whether the data has changed.

    Args:
        prompts: the prompts.
    """
    digest = hashlib.sha256()
    for one in prompts:
        digest.update(json.dumps([one.messages, one.tools, one.label], sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _conversations(config: RunConfig, source: Source) -> Iterator[Conversation | None]:
    """The conversations of a data set; None for an unusable record."""
    opened = open_source(source, config.model.cache_dir)
    records = skip_broken(read_source(opened, config.data.max_samples, config.training.seed), source.label, [])
    peeked = list(islice(records, PEEK_ROWS))
    reading = decide(source, [record.row for record in peeked], wanted_kind(config))
    if any(column in reading.columns for column in ("images", "videos", "audios")):
        raise DataError(f"The data set {source.label} has pictures or sound, which `llf predict` does not take yet.")
    for record in chain(peeked, records):
        try:
            yield reading.align(record.row)
        except BadExample:
            yield None


def _prompt(conversation: Conversation) -> PredictPrompt:
    if conversation.media:
        raise DataError("The data has pictures or sound, which `llf predict` does not take yet.")
    *messages, answer = conversation.messages
    return PredictPrompt(tuple(messages), conversation.tools or (), answer_text(answer))
