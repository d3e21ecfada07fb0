"""One chunk of rows to tokens: align, render, tokenize, mask, cut. A pure function of rows and settings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llf_core.data.cut import cut, learned
from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import ANSWER
from llf_core.data.mask import Tokens, encode
from llf_core.data.render import Rendered, opening_of, render_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.align import Reading
    from llf_core.data.formats.conversation import Conversation
    from llf_core.data.records import Record
    from llf_core.data.render import ChatTemplate


@dataclass(frozen=True)
class Example:
    """An example to learn from.

    Attributes:
        index: of the record that it comes from.
        ids: `[seq]`.
        labels: `[seq]`, -100 where nothing is learned.
        cut: tokens that `cutoff_len` took away.
    """

    index: int
    ids: list[int]
    labels: list[int]
    cut: int


@dataclass
class Chunk:
    """What became of some rows.

    Attributes:
        examples: in the order of the rows.
        dropped: index and reason of every row that gave none.
        digests: SHA-256 of each row that says something, in order, whatever file it came from.
    """

    examples: list[Example] = field(default_factory=list)
    dropped: list[tuple[int, str]] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Encoder:
    """How rows become tokens; can be sent to another process.

    Attributes:
        tokenizer: of the model.
        template: how conversations are rendered.
        reading: how rows are read.
        cutoff_len: most tokens of an example.
        train_on_prompt: learn every token.
        mask_history: learn the last answer only.
        default_system: the system prompt of conversations that bring none; None leaves that to the template.
    """

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    reading: Reading
    cutoff_len: int
    train_on_prompt: bool = False
    mask_history: bool = False
    default_system: str | None = None

    def encode(self, records: Sequence[Record]) -> Chunk:
        """Encodes rows; one that cannot be learned from is named with its reason."""
        chunk = Chunk()
        found: list[tuple[int, Conversation, Rendered]] = []
        for record in records:
            try:
                conversation = self.reading.align(record.row)
                chunk.digests.append(hashlib.sha256(conversation.canonical()).digest())
                conversation = self._with_system(conversation)
                found.append((record.index, conversation, self._render(conversation)))
            except BadExample as error:
                chunk.dropped.append((record.index, str(error)))
        encoded = self._encode([rendered for _, _, rendered in found])
        for (index, conversation, _), tokens in zip(found, encoded, strict=True):
            try:
                chunk.examples.append(self._finish(index, conversation, tokens))
            except BadExample as error:
                chunk.dropped.append((index, str(error)))
        chunk.dropped.sort()
        return chunk

    def _with_system(self, conversation: Conversation) -> Conversation:
        if self.default_system is None or conversation.messages[0]["role"] == "system":
            return conversation
        system = {"role": "system", "content": self.default_system}
        return replace(conversation, messages=(system, *conversation.messages))

    def _render(self, conversation: Conversation) -> Rendered:
        return render_answers(self.template, self.tokenizer, conversation, last_only=self.mask_history)

    def _encode(self, batch: list[Rendered]) -> list[Tokens | BadExample]:
        return encode(self.tokenizer, batch, train_on_prompt=self.train_on_prompt)

    def _finish(self, index: int, conversation: Conversation, tokens: Tokens | BadExample) -> Example:
        if isinstance(tokens, BadExample):
            raise tokens
        length = len(tokens.ids)
        if length > self.cutoff_len:
            tokens = self._cut(conversation, tokens)
        if not learned(tokens.labels):
            raise BadExample("it has no token to learn from")
        return Example(index, tokens.ids, tokens.labels, length - len(tokens.ids))

    def _cut(self, conversation: Conversation, tokens: Tokens) -> Tokens:
        if self.mask_history:
            conversation, tokens = self._without_oldest(conversation, tokens)
        places = [place for place, message in enumerate(conversation.messages) if message["role"] == ANSWER]
        place = places[-1] if self.mask_history else places[0]
        opening = opening_of(self.template, self.tokenizer, conversation, place)
        size = len(self.tokenizer(opening, add_special_tokens=False)["input_ids"]) if opening else 0
        return cut(tokens, self.cutoff_len, min(size, tokens.turns[0].start))

    def _without_oldest(self, conversation: Conversation, tokens: Tokens) -> tuple[Conversation, Tokens]:
        """Leaves out the oldest exchanges, as few as are needed, where only the last answer is learned."""
        messages = conversation.messages
        system = messages[:1] if messages[0]["role"] == "system" else ()
        starts = [place for place, message in enumerate(messages) if message["role"] == "user"][1:]
        for start in starts:
            conversation = replace(conversation, messages=(*system, *messages[start:]))
            (result,) = self._encode([self._render(conversation)])
            if isinstance(result, BadExample):
                raise result
            tokens = result
            if len(tokens.ids) <= self.cutoff_len:
                break
        return conversation, tokens
