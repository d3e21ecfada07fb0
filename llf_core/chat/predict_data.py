"""Prompts of a data set with their reference responses, for batch prediction."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import image_part
from llf_core.data.align import PEEK_ROWS, decide, wanted_kind
from llf_core.data.build import skip_broken
from llf_core.data.chat_template import choose_template
from llf_core.data.conversation import answer_text
from llf_core.data.errors import BadExample, DataError
from llf_core.data.load import open_source, read_source
from llf_core.data.media import KINDS, add_media, content_parts
from llf_core.data.media_files import INLINE, open_image
from llf_core.data.sources import media_dir, sources_of
from llf_core.data.template_check import media_placeholder
from llf_core.data.validation_split import validation_conversations
from llf_core.models.tokenizer import reads_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.data.conversation import Conversation, Medium, Message
    from llf_core.data.media_files import MediaLimits
    from llf_core.data.sources import Source

_IMAGE = {"type": "image"}
WITHOUT_RESPONSES = ("prompts", "texts")
"""Kinds of data whose records have no reference response."""


@dataclass(frozen=True)
class PredictPrompt:
    """A prompt of a data set.

    Attributes:
        messages: the conversation before the last response, in OpenAI's format; with a part `{"type": "image"}` in the
            place of each picture, see `with_pictures`.
        label: the last response of the record: its text, or its calls as JSON.
    """

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    label: str
    pictures: tuple[Medium, ...] = ()


def read_predict_prompts(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, processor: ProcessorMixin | None = None
) -> tuple[list[PredictPrompt], int]:
    """Read the prompts to predict in the order of the data, and the number of unusable records.

    They are the validation split if the config has one (`val_size`), else at most `max_samples` records of each
    `dataset`. Records that the preparation of a validation split leaves out are not counted.

    Raises:
        DataError: the stage's data have no responses; a data set cannot be read, has no usable record, or has media
            that the model or the command does not read; a validation split is streamed, or there is no chat template
            for its pictures.
    """
    if wanted_kind(config) in WITHOUT_RESPONSES:
        raise DataError(
            f"Stage {config.stage.stage} reads data without responses, so there is nothing to predict. Set stage to "
            "one whose data have them, such as sft."
        )
    if config.data.val_size:
        read = list(_of_validation_split(config, tokenizer, processor))
    else:
        sources = sources_of(config, config.data.dataset or ())
        read = [prompt for source in sources for prompt in _prompts(config, source, processor)]
    found = [prompt for prompt in read if prompt is not None]
    if not found:
        raise DataError("No record of the data is usable. `llf inspect` says why.")
    return found, len(read) - len(found)


def with_pictures(
    messages: Sequence[dict[str, Any]], pictures: Sequence[Medium], limits: MediaLimits
) -> tuple[dict[str, Any], ...]:
    """The messages of a prompt with its pictures, opened and scaled as for training.

    They are opened when a request is sent, since those of a whole data set do not fit into memory.
    """
    left = iter(pictures)
    found = [
        {
            **message,
            "content": [image_part(open_image(next(left), limits)) if one == _IMAGE else one for one in parts],
        }
        if isinstance(parts := message["content"], list)
        else message
        for message in messages
    ]
    return tuple(found)


def digest_of(prompts: Sequence[PredictPrompt]) -> str:
    """SHA-256 of prompts in hexadecimal digits. Of the file of a picture, its path, size and time count."""
    digest = hashlib.sha256()
    for one in prompts:
        pictures = [[_state(picture)] for picture in one.pictures]
        digest.update(json.dumps([one.messages, one.tools, one.label, *pictures], sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _state(picture: Medium) -> object:
    if picture.value.startswith(INLINE):
        return hashlib.sha256(picture.value.encode()).hexdigest()
    facts = Path(picture.value).stat()
    return [picture.value, facts.st_size, facts.st_mtime_ns]


def _of_validation_split(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, processor: ProcessorMixin | None
) -> Iterator[PredictPrompt | None]:
    """Prompts of the validation split; None for an unusable record."""
    sign = ""
    if processor is not None:  # a named template has it in its texts
        sign = media_placeholder(choose_template(None, tokenizer), tokenizer, "image") or ""
    found = validation_conversations(config, tokenizer, processor=processor)
    _check_kinds({one.kind for conversation in found for one in conversation.media}, "The validation data", processor)
    for one in found:
        try:
            yield _prompt(one, sign)
        except BadExample:
            yield None


def _prompts(config: RunConfig, source: Source, processor: ProcessorMixin | None) -> Iterator[PredictPrompt | None]:
    """Prompts of a data set; None for an unusable record."""
    opened = open_source(source, config.model.cache_dir)
    records = skip_broken(read_source(opened, config.data.max_samples, config.training.seed), source.label, [])
    peeked = list(islice(records, PEEK_ROWS))
    reading = decide(source, [record.row for record in peeked], wanted_kind(config))
    kinds = {kind for column, kind in KINDS.items() if column in reading.columns}
    _check_kinds(kinds, f"The data set {source.label}", processor)
    for record in chain(peeked, records):
        try:
            conversation = reading.align(record.row)
            if kinds:
                conversation = add_media(conversation, record.row, reading.columns, media_dir(config))
            yield _prompt(conversation)
        except BadExample:
            yield None


def _check_kinds(kinds: set[str], data: str, processor: ProcessorMixin | None) -> None:
    """Refuse media that the model does not read."""
    if others := kinds - {"image"}:
        raise DataError(f"{data} has {min(others)} data. `llf predict` takes text and images.")
    if kinds and not reads_images(processor):
        raise DataError(f"{data} has images, and the model reads text only. Choose a vision model.")


def _prompt(conversation: Conversation, sign: str = "") -> PredictPrompt:
    *messages, answer = (_with_parts(one, sign) if conversation.media else one for one in conversation.messages)
    if _IMAGE in answer.get("parts", ()):
        raise BadExample("its response has a picture")
    for one in conversation.media:
        if not one.value.startswith(INLINE) and not Path(one.value).is_file():
            raise BadExample(f"there is no file {one.value}")
    prompt = tuple(content_parts(messages)) if conversation.media else tuple(_without_parts(one) for one in messages)
    return PredictPrompt(prompt, conversation.tools or (), answer_text(answer), conversation.media)


def _with_parts(message: Message, sign: str) -> Message:
    """A message whose content is a list of parts."""
    if "parts" in message:
        return message
    parts: list[dict[str, str]] = []
    for number, text in enumerate(message["content"].split(sign) if sign else [message["content"]]):
        parts += [_IMAGE] if number else []
        parts += [{"type": "text", "text": text}] if text else []
    return {**message, "parts": parts}


def _without_parts(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "parts"}
