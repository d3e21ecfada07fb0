"""Encodes a chunk of records to tokens: align, render, tokenize, mask, truncate."""

from __future__ import annotations

import gc
import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.data import IGNORED
from llf_core.data.answer_ranges import render_all, render_answers, render_prompt
from llf_core.data.chat_template import choose_template
from llf_core.data.conversation import ANSWERS, PAIRS, PROMPTS, TEXTS, UNPAIRED, Rendered
from llf_core.data.errors import BadExample
from llf_core.data.example_store import Chunk, Example
from llf_core.data.label_mask import Encoded, Tokens, encode
from llf_core.data.media import (
    PREFIX_ATTENTION,
    PROCESSOR_ARGUMENTS,
    add_media,
    check_no_placeholders,
    encode_multimodal,
)
from llf_core.data.media_files import DEFAULT_LIMITS, MediaLimits, too_long
from llf_core.data.packing import first_token
from llf_core.data.template_check import accepts_parts, fields_of, media_placeholder
from llf_core.data.truncation import ConversationTruncator, count_trained, split_blocks, split_long
from llf_core.data.word_cache import SplittingTokenizer, fast_tokenizer_of, splitting_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config.declaration import DataKind
    from llf_core.data.align import Reading
    from llf_core.data.chat_template import ChatTemplate
    from llf_core.data.conversation import Conversation, Message
    from llf_core.data.records import Record, Row
    from llf_core.data.word_cache import FastTokenizer

RenderedRows = list[tuple[int, "Conversation", Rendered]]
"""Record index, conversation and rendered text of each example."""


@dataclass(frozen=True)
class Encoder:
    """Encodes rows to tokens. Can be pickled to another process.

    Attributes:
        mask_history: whether the loss includes only the last answer.
        default_system: system prompt of conversations without one; None leaves it to the template.
        cutoff_strategy: what happens to an example above `cutoff_len`: `cut`, `drop`, or `split` into several examples.
        joins: whether texts are joined later and cut then, so that no length is too long.
        media_dir: base folder of relative paths of media.
        split_special_tokens: whether special tokens in the records' texts are read as plain text.
    """

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    reading: Reading
    cutoff_len: int
    train_on_prompt: bool = False
    mask_history: bool = False
    default_system: str | None = None
    cutoff_strategy: str = "cut"
    joins: bool = False
    kind: DataKind = ANSWERS
    processor: ProcessorMixin | None = None
    media_dir: Path = Path()
    split_special_tokens: bool = False
    limits: MediaLimits = DEFAULT_LIMITS

    @cached_property
    def library(self) -> FastTokenizer | None:
        """The tokenizer's fast implementation, see `fast_tokenizer_of`; None for a slow tokenizer."""
        return splitting_tokenizer(self.tokenizer) if self.split_special_tokens else fast_tokenizer_of(self.tokenizer)

    @cached_property
    def truncator(self) -> ConversationTruncator:
        """Truncates the conversations that `truncates` says."""
        return ConversationTruncator(self.tokenizer, self.template, self.cutoff_len, self.train_on_prompt, self.library)

    @property
    def truncates(self) -> bool:
        """Whether an example above `cutoff_len` loses tokens; otherwise it is dropped or split."""
        return self.cutoff_strategy == "cut" and self.kind != TEXTS

    def encode(self, records: Sequence[Record]) -> Chunk:
        """Encode records to examples. A record that cannot be trained on is reported with its reason, not raised."""
        # Garbage collection takes a fifth of the time, and none of the millions of small objects is part of a cycle.
        collecting = gc.isenabled()
        gc.disable()
        try:
            chunk, rendered_rows = self.render(records)
            return self.finish(chunk, rendered_rows, self.tokenize(rendered_rows))
        finally:
            if collecting:
                gc.enable()

    def render(self, records: Sequence[Record]) -> tuple[Chunk, RenderedRows]:
        """Step 1 of 3: convert records to conversations and render them to text; the chunk has no examples yet.

        The steps are separate so that a second thread can tokenize while this one renders the next chunk.
        """
        chunk = Chunk(rows=len(records))
        rendered_rows: RenderedRows = []
        for record in records:
            try:
                conversation = self._align(record.row)
                chunk.digests.append(hashlib.sha256(conversation.canonical()).digest())
                conversation = self._with_system(conversation)
                chunk.fields.update(fields_of(conversation))
                rendered_rows += [(record.index, part, rendered) for part, rendered in self._texts(conversation)]
            except BadExample as error:
                chunk.dropped.append((record.index, str(error)))
        return chunk, rendered_rows

    def tokenize(self, rendered_rows: RenderedRows) -> list[Encoded | BadExample]:
        """Step 2 of 3: tokenize the texts. A fast tokenizer does this without the GIL."""
        return self._encode([rendered for _, _, rendered in rendered_rows])

    def finish(self, chunk: Chunk, rendered_rows: RenderedRows, tokens: list[Encoded | BadExample]) -> Chunk:
        """Step 3 of 3: truncate or split the tokens to `cutoff_len` and add the examples to the chunk."""
        texts = zip(rendered_rows, tokens, strict=True)
        for (index, conversation, rendered), found in texts:
            seen = {"seen": rendered}
            try:
                if self.kind == PAIRS:
                    (_, _, seen["rejected_seen"]), worse = next(texts)
                    made = [self._pair(index, conversation, found, worse)]
                else:
                    made = self._finish(index, conversation, found)
                chunk.examples += made if self.processor is None else _with_texts(made, seen)
            except BadExample as error:
                chunk.dropped.append((index, str(error)))
        given, reasons = {one.index for one in chunk.examples}, dict(sorted(chunk.dropped, reverse=True))
        chunk.dropped = [
            (index, f"not all of its responses: {reasons[index]}" if index in given else reasons[index])
            for index in sorted(reasons)
        ]
        return chunk

    def _align(self, row: Row) -> Conversation:
        conversation = self.reading.align(row)
        if isinstance(self.library, SplittingTokenizer):
            conversation = self.library.marked(conversation)
        if self.processor is None:
            return conversation
        placeholders = self._placeholders if self._texts_alone else None
        found = add_media(conversation, row, self.reading.columns, self.media_dir, placeholders)
        if found.media and self.kind not in {ANSWERS, PAIRS}:
            raise BadExample(
                "images, videos and audio are supported only in conversations with responses and in preference pairs"
            )
        return found

    @property
    def takes_parts(self) -> bool:
        """Whether contents are rendered as lists of parts, for a multimodal model with a template that takes them."""
        return self.processor is not None and not self._texts_alone

    @cached_property
    def _texts_alone(self) -> bool:
        """Whether the template takes content as strings only. All named templates do."""
        return bool(self.template.marked) or not accepts_parts(self.template, self.tokenizer)

    @cached_property
    def _placeholders(self) -> dict[str, str]:
        """Placeholder of each kind of media in the texts of a named template, as the model's own template writes it."""
        own = choose_template(None, self.tokenizer)
        return {
            kind: sign
            for kind in PROCESSOR_ARGUMENTS
            if (sign := media_placeholder(own, self.tokenizer, kind)) is not None
        }

    def _with_system(self, conversation: Conversation) -> Conversation:
        if self.default_system is None or conversation.messages[0]["role"] == "system":
            return conversation
        system: Message = {"role": "system", "content": self.default_system}
        if "parts" in conversation.messages[0]:
            system["parts"] = [{"type": "text", "text": self.default_system}]
        return replace(conversation, messages=(system, *conversation.messages))

    def _texts(self, conversation: Conversation) -> list[tuple[Conversation, Rendered]]:
        if self.kind == TEXTS:
            start = "" if self.joins or first_token(self.tokenizer) is None else str(self.tokenizer.bos_token)
            text = start + conversation.messages[0]["content"] + (self.tokenizer.eos_token or "")
            return [(conversation, Rendered(text, ((0, len(text)),)))]
        if self.kind == PROMPTS:
            return [(conversation, replace(render_prompt(self.template, self.tokenizer, conversation), answers=()))]
        if self.kind == ANSWERS:
            made = list(render_all(self.template, self.tokenizer, conversation, last_only=self.mask_history))
            if conversation.media and len(made) > 1:
                raise BadExample("the chat template removes earlier thinking, which is not supported with images yet")
        else:
            found = [conversation]
            if conversation.rejected is not None:
                found.append(replace(conversation, messages=(*conversation.messages[:-1], conversation.rejected)))
            made = [(one, render_answers(self.template, self.tokenizer, one, last_only=True)) for one in found]
        if conversation.media:
            return [(one, replace(rendered, media=one.media)) for one, rendered in made]
        if self.processor is not None:
            for _, rendered in made:
                check_no_placeholders(self.processor, rendered.text)
        return made

    def _encode(self, batch: list[Rendered]) -> list[Encoded | BadExample]:
        seen = [number for number, rendered in enumerate(batch) if rendered.media]
        read = [rendered for rendered in batch if not rendered.media]
        found = encode(self.tokenizer, read, train_on_prompt=self.train_on_prompt, library=self.library)
        for number in seen:
            found.insert(number, self._encode_seen(batch[number]))
        return found

    def _encode_seen(self, rendered: Rendered) -> Encoded | BadExample:
        assert self.processor is not None  # noqa: S101 - for the type checker
        try:
            library = self.library
            if library is None:
                return BadExample("the model's tokenizer is a slow tokenizer, which is not supported with images")
            if self.train_on_prompt and type(self.processor).__name__ in PREFIX_ATTENTION:
                return BadExample("train_on_prompt is true, and the model reads the prompt in both directions")
            return encode_multimodal(
                self.processor, library, rendered, self.limits, train_on_prompt=self.train_on_prompt
            )
        except BadExample as error:
            return error

    def check_length(self, length: int, conversation: Conversation) -> None:
        """Refuse an example (of a pair, its longer sequence) above `cutoff_len` that is neither truncated nor split."""
        if length <= self.cutoff_len:
            return
        if conversation.media:
            raise BadExample(too_long(length, self.cutoff_len, {medium.kind for medium in conversation.media}))
        if self.cutoff_strategy == "drop" or (self.kind == PAIRS and not self.truncates):
            raise BadExample(f"it has {length:,} tokens, more than cutoff_len {self.cutoff_len:,}")

    def truncate_pair(self, conversation: Conversation, chosen: Tokens, rejected: Tokens) -> tuple[Tokens, Tokens]:
        """Truncate the two sequences of a preference pair to `cutoff_len`, and check that they can be compared."""
        start = chosen.turns[0].start
        if rejected.turns[0].start != start or chosen.ids[:start] != rejected.ids[:start]:
            raise BadExample("the template renders the prompt differently before the two responses")
        longest = max(len(chosen.ids), len(rejected.ids))
        self.check_length(longest, conversation)
        if longest > self.cutoff_len:
            chosen, rejected = self.truncator.truncate_pair(conversation, chosen, rejected)
        if chosen.ids == rejected.ids:
            raise BadExample("its two responses are identical after truncation and templating")
        return chosen, rejected

    def _pair(
        self, index: int, conversation: Conversation, better: Encoded | BadExample, worse: Encoded | BadExample
    ) -> Example:
        given = _valid(better), _valid(worse)
        chosen, rejected = self.truncate_pair(conversation, *(found.lists() for found in given))
        lost = sum(len(found.ids) for found in given) - len(chosen.ids) - len(rejected.ids)
        learned = count_trained(chosen.labels) + count_trained(rejected.labels)
        more = {"rejected_ids": rejected.ids, "rejected_labels": rejected.labels}
        return Example(index, chosen.ids, chosen.labels, lost, 0, learned, more)

    def _finish(self, index: int, conversation: Conversation, encoded: Encoded | BadExample) -> list[Example]:
        found = _valid(encoded)
        length = len(found.ids)
        if not self.joins:
            self.check_length(length, conversation)
        if length <= self.cutoff_len or self.joins:
            first = bool(length) and found.labels[0] != IGNORED  # no token predicts it, see `count_trained`
            examples = [Example(index, found.ids, found.labels, 0, 0, found.learned - first)]
        elif self.truncates:
            tokens = found.lists()
            short = self.truncator.truncate(*self.truncator.drop_oldest(conversation, tokens))
            count = count_trained(short.labels)
            lost = count_trained(tokens.labels) - count
            examples = [Example(index, short.ids, short.labels, length - len(short.ids), lost, count)]
        else:
            split = split_blocks if self.kind == TEXTS else split_long
            parts = split(found.lists(), self.cutoff_len)
            examples = [Example(index, part.ids, part.labels, 0, 0, count_trained(part.labels)) for part in parts]
        if self.kind == UNPAIRED:
            examples = [example._replace(more={"good": conversation.good}) for example in examples]
        if self.kind != PROMPTS and not self.joins and not any(example.learned for example in examples):
            raise BadExample("it has no tokens in the loss")
        return examples


def _valid(found: Encoded | BadExample) -> Encoded:
    if isinstance(found, BadExample):
        raise found
    return found


def _with_texts(examples: list[Example], texts: Mapping[str, Rendered]) -> list[Example]:
    """Add text and media to the examples of a multimodal model, from which the collator makes tensors."""
    seen = {name: json.dumps([one.text, one.media]) if one.media else "" for name, one in texts.items()}
    return [example._replace(more={**(example.more or {}), **seen}) for example in examples]
