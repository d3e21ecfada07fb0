"""Truncates conversations to `cutoff_len`; the header of an answer is never removed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llf_core.config.data import IGNORED
from llf_core.data.answer_ranges import render_answers
from llf_core.data.conversation import ANSWER
from llf_core.data.errors import BadExample
from llf_core.data.label_mask import Tokens, Turn, encode
from llf_core.data.template_check import answer_header, answer_suffix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.chat_template import ChatTemplate
    from llf_core.data.conversation import Conversation
    from llf_core.data.word_cache import FastTokenizer


def truncated_lengths(source: int, target: int, cutoff: int) -> tuple[int, int]:
    """Number of tokens to keep of a question (with everything before it) and of its answer, together at most `cutoff`.

    Either may use half of the budget plus what the other leaves: `(3000, 2000, 1000) -> (500, 500)`, `(100, 2000, 1000)
    -> (100, 900)`. (LLaMA-Factory divides the budget in proportion, so that a question of 1,100 tokens before an answer
    of 50,000 keeps 45 at a cutoff of 2,048.)
    """
    kept = min(source, max(cutoff - target, cutoff // 2))
    return kept, min(target, cutoff - kept)


def first_overlong_answer(tokens: Tokens, cutoff: int) -> int | None:
    """Index of the first answer that does not fit completely; None if every answer fits."""
    return next((number for number, turn in enumerate(tokens.turns) if turn.end > cutoff), None)


def truncate(tokens: Tokens, cutoff: int, opening: int, closing: int) -> Tokens:
    r"""Truncate a conversation to at most `cutoff` tokens, in such a way that headers and ends of answers are kept.

    In the first exchange, the end of the question and the end of the answer are removed, according to
    `truncated_lengths`. In later exchanges the end of the answer is removed; an exchange without room for its answer is
    removed completely. If every answer fits, what follows the last one is truncated.

    ```
    question…………<|im_end|>\n<|im_start|>assistant\nanswer…………<|im_end|>\n
    question…<|im_end|>\n<|im_start|>assistant\nanswer…<|im_end|>\n
    ```

    Args:
        tokens: more than `cutoff` tokens.
        opening: number of tokens before the first answer that are never removed.
        closing: number of tokens at the end of the first answer that does not fit which are never removed.
    """
    number = first_overlong_answer(tokens, cutoff)
    if number is None:
        return Tokens(tokens.ids[:cutoff], tokens.labels[:cutoff], tokens.turns)
    turn = tokens.turns[number]
    if number == 0:
        source, target = truncated_lengths(turn.start, turn.end - turn.start, cutoff)
        source = max(source, opening)
        target = min(target, cutoff - source)
        pieces = [slice(source - opening), slice(turn.start - opening, turn.start)]
    else:
        source, target = turn.start, cutoff - turn.start
        pieces = [slice(source)]
    words = target - closing if target < turn.end - turn.start else target
    if words >= 1:
        end = source + target
        turns = (*tokens.turns[:number], Turn(source, end))
        pieces += [slice(turn.start, turn.start + words), slice(turn.end - (target - words), turn.end)]
    elif number == 0:
        raise BadExample(f"cutoff_len {cutoff} leaves no room for its response and the template tokens around it")
    else:
        turns = tokens.turns[:number]
        pieces = [slice(turns[-1].end)]

    def kept(values: list[int]) -> list[int]:
        return [value for piece in pieces for value in values[piece]]

    return Tokens(kept(tokens.ids), kept(tokens.labels), turns)


def split_long(tokens: Tokens, cutoff: int) -> list[Tokens]:
    """Split a conversation into parts of at most `cutoff` tokens, in which every label counts once.

    Each part but the first begins with the last `cutoff // 4` tokens (at least one; the quarter is chosen by hand) of
    the part before it as context, without labels. Parts without a trained token are left out.

    ```
    [0 1 2 3 4 5 6 7 8 9], cutoff 4  ->  [0 1 2 3], [(3) 4 5 6], [(6) 7 8 9]
    ```
    """
    overlap = max(1, cutoff // 4)
    parts, start, end = [], 0, cutoff
    while True:
        read = [IGNORED] * (overlap if start else 0)
        labels = read + tokens.labels[start + len(read) : end]
        if count_trained(labels):
            parts.append(Tokens(tokens.ids[start:end], labels, ()))
        if end >= len(tokens.ids):
            return parts
        start, end = end - overlap, end - overlap + cutoff


def split_blocks(tokens: Tokens, size: int) -> list[Tokens]:
    """Split a plain text into blocks of `size` tokens; the last one has the remaining tokens."""
    return [
        Tokens(tokens.ids[start : start + size], tokens.labels[start : start + size], ())
        for start in range(0, len(tokens.ids), size)
    ]


def count_trained(labels: Sequence[int]) -> int:
    """Number of labels `[seq]` other than -100, without the first one of a sequence, which no token predicts."""
    first = bool(labels) and labels[0] != IGNORED
    return len(labels) - labels.count(IGNORED) - first


@dataclass(frozen=True)
class ConversationTruncator:
    """Truncates the tokens of conversations without media. Only positions determine what is kept, never a label.

    Attributes:
        cutoff_len: maximum number of tokens of a sequence, at least 2.
    """

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    cutoff_len: int
    train_on_prompt: bool
    library: FastTokenizer | None

    def drop_oldest(self, conversation: Conversation, tokens: Tokens) -> tuple[Conversation, Tokens]:
        """Drop as few of the oldest exchanges as necessary, if only the last answer is trained on.

        Returns:
            The conversation from a later question on, with its system prompt, and its tokens. They exceed `cutoff_len`
            if the last exchange alone does.
        """
        if len(tokens.ids) <= self.cutoff_len or len(tokens.turns) != 1:
            return conversation, tokens
        messages = conversation.messages
        system = messages[:1] if messages[0]["role"] == "system" else ()
        starts = [place for place, message in enumerate(messages) if message["role"] == "user"][1:]
        for start in starts:
            conversation = replace(conversation, messages=(*system, *messages[start:]))
            rendered = render_answers(self.template, self.tokenizer, conversation, last_only=True)
            (result,) = encode(self.tokenizer, [rendered], train_on_prompt=self.train_on_prompt, library=self.library)
            if isinstance(result, BadExample):
                raise result
            tokens = result.lists()
            if len(tokens.ids) <= self.cutoff_len:
                break
        return conversation, tokens

    def truncate(self, conversation: Conversation, tokens: Tokens) -> Tokens:
        """Truncate a conversation from `drop_oldest`; see `llf_core.data.truncation.truncate`.

        Of a prompt without an answer, the end of the last message is removed; the generation prompt after it is kept.
        """
        if len(tokens.ids) <= self.cutoff_len:
            return tokens
        if not tokens.turns:
            return self._truncate_prompt(conversation, tokens)
        places = [place for place, message in enumerate(conversation.messages) if message["role"] == ANSWER]
        places = places[-len(tokens.turns) :]
        number = first_overlong_answer(tokens, self.cutoff_len)
        opening = closing = 0
        if number == 0:
            opening = self._header_length(conversation, places[0], tokens.turns[0])
        if number is not None:
            # A template may mark several parts of an answer as generated.
            suffix = self._suffix(conversation, places[min(number, len(places) - 1)])
            closing = _common_end(tokens, tokens.turns[number], suffix)
        return truncate(tokens, self.cutoff_len, opening, closing)

    def truncate_pair(self, conversation: Conversation, chosen: Tokens, rejected: Tokens) -> tuple[Tokens, Tokens]:
        """Truncate the two sequences of a preference pair, with the same prompt for both."""
        place = len(conversation.messages) - 1
        turn = chosen.turns[0]
        longest = max(tokens.turns[0].end - turn.start for tokens in (chosen, rejected))
        opening = self._header_length(conversation, place, turn)
        source = max(truncated_lengths(turn.start, longest, self.cutoff_len)[0], opening)
        suffix = self._suffix(conversation, place)

        def short(tokens: Tokens) -> Tokens:
            answer = slice(turn.start, tokens.turns[0].end)
            room = self.cutoff_len - source
            closing = _common_end(tokens, tokens.turns[0], suffix)
            if room <= closing:
                raise BadExample(f"cutoff_len {self.cutoff_len} leaves no room for its response")

            def kept(values: list[int]) -> list[int]:
                kept_answer = values[answer]
                if len(kept_answer) > room:
                    kept_answer = kept_answer[: room - closing] + kept_answer[len(kept_answer) - closing :]
                return values[: source - opening] + values[turn.start - opening : turn.start] + kept_answer

            ids = kept(tokens.ids)
            return Tokens(ids, kept(tokens.labels), (Turn(source, len(ids)),))

        return short(chosen), short(rejected)

    def _truncate_prompt(self, conversation: Conversation, tokens: Tokens) -> Tokens:
        opening = len(self._ids(answer_header(self.template, self.tokenizer, conversation, len(conversation.messages))))
        if opening >= self.cutoff_len:
            raise BadExample(f"cutoff_len {self.cutoff_len} leaves no room for its prompt")

        def kept(values: list[int]) -> list[int]:
            return values[: self.cutoff_len - opening] + values[len(values) - opening :]

        return Tokens(kept(tokens.ids), kept(tokens.labels), ())

    def _header_length(self, conversation: Conversation, place: int, turn: Turn) -> int:
        """Number of tokens that the template writes between a question and its answer."""
        return min(len(self._ids(answer_header(self.template, self.tokenizer, conversation, place))), turn.start)

    def _suffix(self, conversation: Conversation, place: int) -> list[int]:
        """Tokens that the template writes after the words of an answer."""
        return self._ids(answer_suffix(self.template, self.tokenizer, conversation, place))

    def _ids(self, text: str) -> list[int]:
        if not text:
            return []
        if self.library is not None:
            return self.library.ids([text])[0].tolist()
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _common_end(tokens: Tokens, turn: Turn, suffix: list[int]) -> int:
    """Number of tokens of the suffix if an answer ends with all of it, otherwise 0."""
    return len(suffix) if tokens.ids[turn.end - len(suffix) : turn.end] == suffix else 0
