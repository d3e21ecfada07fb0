"""Encodes a chunk of rows to tokens: align, render, tokenize, mask, truncate. A pure function of rows and settings."""

from __future__ import annotations

import gc
import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llf_core.config.ignore_index import IGNORED
from llf_core.data.answer_ranges import render_all, render_answers, render_prompt
from llf_core.data.chat_template import choose_template
from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import ANSWER, ANSWERS, PAIRS, PROMPTS, TEXTS, UNPAIRED
from llf_core.data.label_mask import Encoded, Tokens, Turn, encode
from llf_core.data.media import (
    PREFIX_ATTENTION,
    PROCESSOR_ARGUMENTS,
    add_media,
    check_no_placeholders,
    encode_multimodal,
)
from llf_core.data.media_limits import DEFAULT_LIMITS, MediaLimits
from llf_core.data.rendered import Rendered
from llf_core.data.special_tokens import SplittingTokenizer, splitting_tokenizer
from llf_core.data.template_check import fields_of
from llf_core.data.template_probes import accepts_parts, answer_header, answer_suffix, media_placeholder
from llf_core.data.truncation import (
    count_trained,
    first_overlong_answer,
    split_blocks,
    split_long,
    truncate,
    truncated_lengths,
)
from llf_core.data.word_cache import fast_tokenizer_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config.declaration import DataKind
    from llf_core.data.align import Reading
    from llf_core.data.chat_template import ChatTemplate
    from llf_core.data.formats.conversation import Conversation, Message
    from llf_core.data.records import Record, Row
    from llf_core.data.template_check import Field
    from llf_core.data.word_cache import FastTokenizer


class Example(NamedTuple):
    """A training example.

    Attributes:
        index: index of the record that it comes from.
        ids: token ids `[seq]`.
        labels: labels `[seq]`, -100 where a token does not contribute to the loss.
        cut: number of tokens that `cutoff_len` removed.
        cut_learned: number of those that would contribute to the loss; 0 for a preference pair.
        learned: number of labels that contribute to the loss, see `count_trained`; of a pair in both sequences.
        more: further columns: `rejected_ids` and `rejected_labels` of a preference pair, `good` of an unpaired
            preference, `seen` for a multimodal model (text and media as JSON, empty without media; of a pair also
            `rejected_seen`). None if there are none.
    """

    index: int  # type: ignore[assignment]  # nobody looks a value up in it
    ids: Sequence[int]
    labels: Sequence[int]
    cut: int
    cut_learned: int
    learned: int
    more: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ExplainedExample:
    """An example before truncation.

    Attributes:
        conversation: the conversation.
        rendered: its text.
        tokens: its token ids and labels.
        kept: `[seq]`, whether a token is left after truncation.
    """

    conversation: Conversation
    rendered: Rendered
    tokens: Tokens
    kept: list[bool]


@dataclass
class Chunk:
    """Result of encoding some rows.

    Attributes:
        examples: in the order of the rows.
        dropped: index and reason of every row that gives no example, or not one for each of its responses.
        digests: SHA-256 of each valid row, in order; independent of the file format.
        rows: number of rows.
        fields: fields of the conversations beyond role and content, see `fields_of`.
    """

    examples: list[Example] = field(default_factory=list)
    dropped: list[tuple[int, str]] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    rows: int = 0
    fields: set[Field] = field(default_factory=set)


SHORTER = {"image": "image_max_pixels", "video": "video_maxlen"}
"""Keys that lower the number of tokens of each kind of media."""


RenderedRows = list[tuple[int, "Conversation", Rendered]]
"""Record index, conversation and rendered text of each example."""


@dataclass(frozen=True)
class Encoder:
    """Encodes rows to tokens. Can be pickled to another process.

    Attributes:
        tokenizer: tokenizer of the model.
        template: renders conversations.
        reading: how rows are read.
        cutoff_len: maximum number of tokens of an example.
        train_on_prompt: whether the loss includes the prompt.
        mask_history: whether the loss includes only the last answer.
        default_system: system prompt of conversations without one; None leaves it to the template.
        cutoff_strategy: what happens to a longer example: `cut`, `drop`, or `split` into several examples.
        kind: kind of data, one of `llf_core.data.formats.conversation.DATA_KINDS`.
        processor: processor of a multimodal model; else None.
        media_dir: base folder of relative paths of media.
        split_special_tokens: whether special tokens in the records' texts are read as plain text.
        limits: limits of media.
    """

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    reading: Reading
    cutoff_len: int
    train_on_prompt: bool = False
    mask_history: bool = False
    default_system: str | None = None
    cutoff_strategy: str = "cut"
    kind: DataKind = ANSWERS
    processor: ProcessorMixin | None = None
    media_dir: Path = Path()
    split_special_tokens: bool = False
    limits: MediaLimits = DEFAULT_LIMITS

    @cached_property
    def library(self) -> FastTokenizer | None:
        """The tokenizer's fast implementation, which tokenizes a chunk in few calls; None for a slow tokenizer.

        With a cache of tokenized words if the tokenizer allows it, see `fast_tokenizer_of`.

        Raises:
            DataError: special tokens are to be split, and the tokenizer is slow.
        """
        return splitting_tokenizer(self.tokenizer) if self.split_special_tokens else fast_tokenizer_of(self.tokenizer)

    def encode(self, records: Sequence[Record]) -> Chunk:
        """Encode records to examples. A record that cannot be trained on is reported with its reason, not raised.

        One bad record in a million must not end a preparation. Python's garbage collection is off meanwhile.

        Args:
            records: consecutive records of a data set.

        Returns:
            The examples, the dropped records, and what the report needs.

        Raises:
            DataError: the chat template exceeds its limits, special tokens are to be split by a slow tokenizer, or
                `tokenize` fails: later records would fail too.
            MemoryError: out of memory.
            PluginError: the implementation of a format cannot be imported, or two installed packages declare the same
                format.
        """
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
        """Step 1 of 3: convert records to conversations and render them to text.

        The steps are separate so that a second thread can tokenize while this one renders the next chunk.

        Args:
            records: consecutive records of a data set.

        Returns:
            The chunk, as yet without examples, and the texts to tokenize.

        Raises:
            DataError: the chat template exceeds its limits, or special tokens are to be split by a slow tokenizer.
            MemoryError: out of memory.
            PluginError: the implementation of a format cannot be imported, or two installed packages declare the same
                format.
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
        """Step 2 of 3: tokenize the texts. A fast tokenizer does this without the GIL.

        Args:
            rendered_rows: from `render`.

        Returns:
            For each text its tokens and labels, or why it cannot be encoded.

        Raises:
            DataError: the tokenizer fails on a text, the package that decodes videos or audio is not installed,
                `audio_sampling_rate` is not the rate of the model's feature extractor, or the processor cannot be run
                on conversations with such media.
            MemoryError: out of memory.
        """
        return self._encode([rendered for _, _, rendered in rendered_rows])

    def finish(self, chunk: Chunk, rendered_rows: RenderedRows, tokens: list[Encoded | BadExample]) -> Chunk:
        """Step 3 of 3: truncate or split the tokens to `cutoff_len` and make examples of them.

        It runs when the tokens of the second thread have arrived.

        Args:
            chunk: from `render`; examples and dropped records are added.
            rendered_rows: from `render`.
            tokens: from `tokenize`.

        Returns:
            The same chunk.

        Raises:
            DataError: the chat template exceeds its limits, or the tokenizer fails on a text that is shortened.
            MemoryError: out of memory.
            ValueError: `rendered_rows` and `tokens` differ in length.
        """
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
        """Whether contents are rendered as lists of parts, for a multimodal model with a template that takes them.

        Raises:
            DataError: the template exceeds its limits of steps or length.
            MemoryError: out of memory.
        """
        return self.processor is not None and not self._texts_alone

    @cached_property
    def _texts_alone(self) -> bool:
        """Whether the template takes content as strings only.

        All named templates do; a model's own may take lists of parts.
        """
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
        """Texts to tokenize for a conversation: two of a preference pair, otherwise one, or one for each answer."""
        if self.kind == ANSWERS:
            return self._render(conversation)
        if self.kind == TEXTS:
            text = conversation.messages[0]["content"] + (self.tokenizer.eos_token or "")
            return [(conversation, Rendered(text, ((0, len(text)),)))]
        if self.kind == PROMPTS:
            return [(conversation, replace(render_prompt(self.template, self.tokenizer, conversation), answers=()))]
        found = [conversation]
        if conversation.rejected is not None:
            found.append(replace(conversation, messages=(*conversation.messages[:-1], conversation.rejected)))
        made = [(one, render_answers(self.template, self.tokenizer, one, last_only=True)) for one in found]
        if conversation.media:
            return [(one, replace(rendered, media=one.media)) for one, rendered in made]
        for _, rendered in made if self.processor is not None else ():
            check_no_placeholders(self.processor, rendered.text)
        return made

    def _pair(
        self, index: int, conversation: Conversation, better: Encoded | BadExample, worse: Encoded | BadExample
    ) -> Example:
        """Example of a preference pair: two answers to one question, which is truncated equally for both."""
        for found in (better, worse):
            if isinstance(found, BadExample):
                raise found
        assert isinstance(better, Encoded)  # noqa: S101 - for the type checker
        assert isinstance(worse, Encoded)  # noqa: S101 - for the type checker
        chosen, rejected = better.lists(), worse.lists()
        start = chosen.turns[0].start
        if rejected.turns[0].start != start or chosen.ids[:start] != rejected.ids[:start]:
            raise BadExample("the template renders the prompt differently before the two responses")
        length = len(chosen.ids) + len(rejected.ids)
        if max(len(chosen.ids), len(rejected.ids)) > self.cutoff_len:
            if conversation.media:
                raise self._too_long_with_media(max(len(chosen.ids), len(rejected.ids)), conversation)
            if self.cutoff_strategy != "cut":
                longest = max(len(chosen.ids), len(rejected.ids))
                raise BadExample(f"it has {longest:,} tokens, more than cutoff_len {self.cutoff_len:,}")
            chosen, rejected = self._cut_pair(conversation, chosen, rejected)
        if chosen.ids == rejected.ids:
            raise BadExample("its two responses are identical after truncation and templating")
        lost = length - len(chosen.ids) - len(rejected.ids)
        more = {"rejected_ids": rejected.ids, "rejected_labels": rejected.labels}
        return Example(
            index,
            chosen.ids,
            chosen.labels,
            lost,
            0,
            count_trained(chosen.labels) + count_trained(rejected.labels),
            more,
        )

    def _too_long_with_media(self, length: int, conversation: Conversation) -> BadExample:
        """Why an example with media is dropped that is longer than `cutoff_len`, and which key makes it shorter."""
        kinds = {medium.kind for medium in conversation.media}
        keys = [key for kind, key in SHORTER.items() if kind in kinds]
        lower = f" Raise cutoff_len, or lower {' or '.join(keys)}" if keys else " Raise cutoff_len"
        return BadExample(
            f"it has {length:,} tokens with its {' and '.join(f'{kind}s' for kind in sorted(kinds))}, more than "
            f"cutoff_len {self.cutoff_len:,}, and they cannot be truncated.{lower}"
        )

    def _cut_pair(self, conversation: Conversation, chosen: Tokens, rejected: Tokens) -> tuple[Tokens, Tokens]:
        place = len(conversation.messages) - 1
        start = chosen.turns[0].start
        longest = max(tokens.turns[0].end - start for tokens in (chosen, rejected))
        opening = min(len(self._ids(answer_header(self.template, self.tokenizer, conversation, place))), start)
        source = max(truncated_lengths(start, longest, self.cutoff_len)[0], opening)
        closes = self._ids(answer_suffix(self.template, self.tokenizer, conversation, place))

        def short(tokens: Tokens) -> Tokens:
            room, answer = self.cutoff_len - source, slice(start, tokens.turns[0].end)
            closing = len(closes) if tokens.ids[answer][-len(closes) :] == closes else 0
            if room <= closing:
                raise BadExample(f"cutoff_len {self.cutoff_len} leaves no room for its response")

            def kept(values: list[int]) -> list[int]:
                kept_answer = values[answer]
                if len(kept_answer) > room:
                    kept_answer = kept_answer[: room - closing] + kept_answer[len(kept_answer) - closing :]
                return values[: source - opening] + values[start - opening : start] + kept_answer

            ids = kept(tokens.ids)
            return Tokens(ids, kept(tokens.labels), (Turn(source, len(ids)),))

        return short(chosen), short(rejected)

    def _render(self, conversation: Conversation) -> list[tuple[Conversation, Rendered]]:
        found = list(render_all(self.template, self.tokenizer, conversation, last_only=self.mask_history))
        if not conversation.media:
            for _, rendered in found if self.processor is not None else ():
                check_no_placeholders(self.processor, rendered.text)
            return found
        if len(found) > 1:
            raise BadExample("the chat template removes earlier thinking, which is not supported with images yet")
        return [(part, replace(rendered, media=part.media)) for part, rendered in found]

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

    def _finish(self, index: int, conversation: Conversation, found: Encoded | BadExample) -> list[Example]:
        if isinstance(found, BadExample):
            raise found
        length = len(found.ids)
        if length > self.cutoff_len and conversation.media:
            raise self._too_long_with_media(length, conversation)
        if length > self.cutoff_len and self.cutoff_strategy == "drop":
            raise BadExample(f"it has {length:,} tokens, more than cutoff_len {self.cutoff_len:,}")
        if length <= self.cutoff_len:
            first = bool(length) and found.labels[0] != IGNORED  # no token predicts it, see `count_trained`
            examples = [Example(index, found.ids, found.labels, 0, 0, found.learned - first)]
        elif self.cutoff_strategy == "split" or self.kind == TEXTS:
            tokens = found.lists()
            parts = split_blocks(tokens, self.cutoff_len) if self.kind == TEXTS else split_long(tokens, self.cutoff_len)
            examples = [Example(index, part.ids, part.labels, 0, 0, count_trained(part.labels)) for part in parts]
        else:
            tokens = found.lists()
            short = self._cut(conversation, tokens)
            count = count_trained(short.labels)
            lost = count_trained(tokens.labels) - count
            examples = [Example(index, short.ids, short.labels, length - len(short.ids), lost, count)]
        if self.kind == UNPAIRED:
            examples = [example._replace(more={"good": conversation.good}) for example in examples]
        if self.kind != PROMPTS and not any(example.learned for example in examples):
            raise BadExample("it has no tokens in the loss")
        return examples

    def _cut(self, conversation: Conversation, tokens: Tokens) -> Tokens:
        if self.kind == PROMPTS:
            return self._cut_prompt(conversation, tokens)
        _, tokens, opening, closing = self._to_cut(conversation, tokens)
        return truncate(tokens, self.cutoff_len, opening, closing) if len(tokens.ids) > self.cutoff_len else tokens

    def _cut_prompt(self, conversation: Conversation, tokens: Tokens) -> Tokens:
        """Truncate the last message of a prompt; the generation prompt is kept."""
        opens = answer_header(self.template, self.tokenizer, conversation, len(conversation.messages))
        opening = len(self._ids(opens))
        if opening >= self.cutoff_len:
            raise BadExample(f"cutoff_len {self.cutoff_len} leaves no room for its prompt")

        def kept(values: list[int]) -> list[int]:
            return values[: self.cutoff_len - opening] + values[len(values) - opening :]

        return Tokens(kept(tokens.ids), kept(tokens.labels), ())

    def _to_cut(self, conversation: Conversation, tokens: Tokens) -> tuple[Conversation, Tokens, int, int]:
        """Drop the oldest exchanges if only the last answer is trained on, and find the tokens that are always kept.

        Returns:
            Conversation, tokens, number of tokens that open the first answer, number of tokens that close the truncated
            one.
        """
        last_only = len(tokens.turns) == 1
        if last_only:
            conversation, tokens = self._without_oldest(conversation, tokens)
            if len(tokens.ids) <= self.cutoff_len:
                return conversation, tokens, 0, 0
        places = [place for place, message in enumerate(conversation.messages) if message["role"] == ANSWER]
        places = places[-1:] if last_only else places
        number = first_overlong_answer(tokens, self.cutoff_len)
        turn, opening = tokens.turns[number], 0
        if number == 0:
            opens = answer_header(self.template, self.tokenizer, conversation, places[0])
            opening = min(len(self._ids(opens)), turn.start)
        closes = self._ids(answer_suffix(self.template, self.tokenizer, conversation, places[number]))
        closing = len(closes) if tokens.ids[turn.end - len(closes) : turn.end] == closes else 0
        return conversation, tokens, opening, closing

    def explain(self, record: Record) -> list[ExplainedExample]:
        """Encode a record for inspection, with the tokens that truncation removes.

        `encode` keeps none of them, and a person judges by them whether `cutoff_len` is too small. Only the strategy
        `cut` removes tokens: with the others, an example is shown whole.

        Args:
            record: the record.

        Returns:
            Its examples; of a pair the chosen and the rejected one.

        Raises:
            BadExample: the record yields no example; the message is the reason.
            DataError: the chat template exceeds its limits, special tokens are to be split by a slow tokenizer, or
                `tokenize` fails.
            MemoryError: out of memory.
            PluginError: the implementation of a format cannot be imported, or two installed packages declare the same
                format.
        """
        conversation = self._with_system(self._align(record.row))
        parts = self._texts(conversation)
        encoded = self._encode([rendered for _, rendered in parts])
        reasons = [found for found in encoded if isinstance(found, BadExample)]
        if self.kind == PAIRS:
            if reasons:
                raise reasons[0]
            made = [found.lists() for found in encoded if isinstance(found, Encoded)]
            return self._explain_pair(conversation, parts, made)
        explained = []
        for (part, rendered), found in zip(parts, encoded, strict=True):
            if isinstance(found, Encoded):
                try:
                    explained.append(self._explain_one(part, rendered, found.lists()))
                except BadExample as error:  # the other responses may give examples
                    reasons.append(error)
        if reasons and not explained:
            raise reasons[0]
        return explained

    def _explain_one(self, part: Conversation, rendered: Rendered, tokens: Tokens) -> ExplainedExample:
        whole, kept = part, [True] * len(tokens.ids)
        if len(tokens.ids) > self.cutoff_len and self.cutoff_strategy == "cut" and self.kind != TEXTS:
            opening = closing = 0
            if self.kind != PROMPTS:
                whole, tokens, opening, closing = self._to_cut(part, tokens)
            places = tokens._replace(ids=list(range(len(tokens.ids))))
            if len(tokens.ids) > self.cutoff_len:
                prompts = self.kind == PROMPTS
                short = (
                    self._cut_prompt(whole, places) if prompts else truncate(places, self.cutoff_len, opening, closing)
                )
                left = set(short.ids)
                kept = [place in left for place in places.ids]
            if whole is not part:
                rendered = render_answers(self.template, self.tokenizer, whole, last_only=True)
        return ExplainedExample(whole, rendered, tokens, kept[: len(tokens.ids)])

    def _explain_pair(
        self, conversation: Conversation, parts: Sequence[tuple[Conversation, Rendered]], tokens: Sequence[Tokens]
    ) -> list[ExplainedExample]:
        kept = [range(len(one.ids)) for one in tokens]
        if max(map(len, kept)) > self.cutoff_len and self.cutoff_strategy == "cut":
            # Positions in place of the labels show which tokens are kept.
            chosen, rejected = (one._replace(labels=list(places)) for one, places in zip(tokens, kept, strict=True))
            kept = [set(one.labels) for one in self._cut_pair(conversation, chosen, rejected)]  # type: ignore[misc]
        return [
            ExplainedExample(side, rendered, one, [place in left for place in range(len(one.ids))])
            for (side, rendered), one, left in zip(parts, tokens, kept, strict=True)
        ]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return ids

    def _without_oldest(self, conversation: Conversation, tokens: Tokens) -> tuple[Conversation, Tokens]:
        """Drop as few of the oldest exchanges as necessary, if only the last answer is trained on."""
        messages = conversation.messages
        system = messages[:1] if messages[0]["role"] == "system" else ()
        starts = [place for place, message in enumerate(messages) if message["role"] == "user"][1:]
        for start in starts:
            conversation = replace(conversation, messages=(*system, *messages[start:]))
            rendered = render_answers(self.template, self.tokenizer, conversation, last_only=True)
            (result,) = self._encode([rendered])
            if isinstance(result, BadExample):
                raise result
            tokens = result.lists()
            if len(tokens.ids) <= self.cutoff_len:
                break
        return conversation, tokens


def _with_texts(examples: list[Example], texts: Mapping[str, Rendered]) -> list[Example]:
    """Add text and media to the examples of a multimodal model, from which the collator makes tensors."""
    seen = {name: json.dumps([one.text, one.media]) if one.media else "" for name, one in texts.items()}
    return [example._replace(more={**(example.more or {}), **seen}) for example in examples]
