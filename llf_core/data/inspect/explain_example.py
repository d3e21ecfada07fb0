"""Explains an example token by token: its text, role, and whether it is trained on, read or truncated."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, TypedDict

from llf_core.config.data import IGNORED
from llf_core.data.answer_ranges import MARKERS, render_answers
from llf_core.data.conversation import PAIRS
from llf_core.data.errors import BadExample

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.chat_template import ChatTemplate
    from llf_core.data.conversation import Conversation, Rendered
    from llf_core.data.encoder import Encoder, RenderedRows
    from llf_core.data.label_mask import Tokens
    from llf_core.data.records import Record

PROMPT, TRAINED, CUT = "prompt", "trained", "cut"


class ShownTurn(TypedDict):
    """A turn of an example.

    Attributes:
        role: role of its message; empty if turns are unknown.
        tokens: `[text, id, state, special]` of each token, with state `prompt`, `trained` or `cut`; of the tokens of an
            image, video or audio one entry, with their number as its fifth value.
    """

    role: str
    tokens: list[list[object]]


def tokens_by_turn(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, found: UntruncatedExample
) -> list[ShownTurn]:
    """Tokens of an example before truncation, by turn.

    A tokenizer without offsets, or an example with more tokens than its text alone, as with media, gives one turn
    without a role, in which no token is `cut`.
    """
    spans = _token_spans(tokenizer, found.rendered)
    ids, labels = found.tokens.ids, found.tokens.labels
    if spans is None or len(spans) != len(ids):
        return [{"role": "", "tokens": tokens_without_turns(tokenizer, ids, labels)}]
    text, special = found.rendered.text, set(tokenizer.all_special_ids)
    borders = _turn_starts(tokenizer, template, found)
    starts = [start for start, _ in borders]
    turns: list[ShownTurn] = [{"role": role, "tokens": []} for _, role in borders]
    shown_to = 0
    for place, (begin, end) in enumerate(spans):
        state = CUT if not found.kept[place] else TRAINED if labels[place] != IGNORED else PROMPT
        # Two tokens may share a character (a part of an emoji each): it is shown once.
        shown = text[max(begin, shown_to) : end]
        shown_to = max(shown_to, end)
        turn = turns[max(0, bisect_right(starts, begin) - 1)]
        turn["tokens"].append([shown, ids[place], state, ids[place] in special])
    return [turn for turn in turns if turn["tokens"]]


def tokens_without_turns(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], labels: Sequence[int]
) -> list[list[object]]:
    """`[text, id, state, special]` of each token, with state `prompt` or `trained`."""
    special = set(tokenizer.all_special_ids)
    return [
        [tokenizer.decode([one]), one, TRAINED if label != IGNORED else PROMPT, one in special]
        for one, label in zip(ids, labels, strict=True)
    ]


def collapse_media(tokens: Sequence[list[object]], media: Collection[int]) -> list[list[object]]:
    """Merge consecutive media tokens with the same id and state into one entry with their number.

    Args:
        tokens: `[text, id, state, special]` of each token.
        media: ids of the tokens that stand for media.
    """
    shown: list[list[object]] = []
    for (name, _), run in groupby(tokens, key=lambda token: (token[1], token[2])):
        found = list(run)
        shown += [[*found[0], len(found)]] if name in media and len(found) > 1 else found
    return shown


def _token_spans(tokenizer: PreTrainedTokenizerBase, rendered: Rendered) -> list[tuple[int, int]] | None:
    """Characters `[start, end)` of each token, tokenized in the same pieces as for training; None without offsets."""
    if not tokenizer.is_fast:
        return None
    borders = sorted({0, *(rendered.cuts or ()), len(rendered.text)})
    spans: list[tuple[int, int]] = []
    for start, end in pairwise(borders):
        found = tokenizer(
            rendered.text[start:end], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        spans += [(start + begin, start + stop) for begin, stop in found]
    return spans


def _turn_starts(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, found: UntruncatedExample
) -> list[tuple[int, str]]:
    """Character position and role of each turn, ascending, by rendering prefixes of the conversation.

    A default system prompt of the template is separated from the first message by the token that begins the later
    turns. A turn whose prefix the template rewrites or cannot render is part of the one before it.
    """
    messages, text = found.conversation.messages, found.rendered.text
    borders = [(0, str(messages[0]["role"]))]
    for number, message in enumerate(messages[1:], start=1):
        try:
            before = template.render(
                tokenizer, messages[:number], found.conversation.tools, markers=bool(template.marked)
            )
        except BadExample:
            continue
        before = MARKERS.sub("", before)
        if text.startswith(before) and len(before) > borders[-1][0]:
            borders.append((len(before), str(message["role"])))
    if len(borders) > 1 and messages[0]["role"] != "system":
        begins = next((one for one in tokenizer.all_special_tokens if text.startswith(one, borders[1][0])), None)
        start = text.rfind(begins, 0, text.find(messages[0]["content"])) if begins else 0
        if start > 0 and text[:start].count(begins or ""):
            borders = [(0, "system"), (start, str(messages[0]["role"])), *borders[1:]]
    return borders


@dataclass(frozen=True)
class UntruncatedExample:
    """An example before truncation, and whether each token is kept, `[seq]`."""

    conversation: Conversation
    rendered: Rendered
    tokens: Tokens
    kept: list[bool]


def untruncated_examples(encoder: Encoder, record: Record) -> list[UntruncatedExample]:
    """Encode a record with the tokens that truncation removes; a pair gives the chosen and the rejected example.

    Only the strategy `cut` removes tokens: with `split`, an example is shown whole. An example whose oldest exchanges
    are dropped begins after them.
    """
    chunk, rows = encoder.render([record])
    if chunk.dropped:
        raise BadExample(chunk.dropped[0][1])
    encoded = encoder.tokenize(rows)
    reasons = [found for found in encoded if isinstance(found, BadExample)]
    if encoder.kind == PAIRS:
        if reasons:
            raise reasons[0]
        return _pair(encoder, rows, [found.lists() for found in encoded if not isinstance(found, BadExample)])
    examples = []
    for (_, conversation, rendered), found in zip(rows, encoded, strict=True):
        if not isinstance(found, BadExample):
            try:
                examples.append(_example(encoder, conversation, rendered, found.lists()))
            except BadExample as error:  # the other responses may give examples
                reasons.append(error)
    if reasons and not examples:
        raise reasons[0]
    return examples


def _example(encoder: Encoder, conversation: Conversation, rendered: Rendered, tokens: Tokens) -> UntruncatedExample:
    encoder.check_length(len(tokens.ids), conversation)
    kept = [True] * len(tokens.ids)
    if len(tokens.ids) > encoder.cutoff_len and encoder.truncates:
        shorter, tokens = encoder.truncator.drop_oldest(conversation, tokens)
        kept = _kept(tokens, encoder.truncator.truncate(shorter, _with_positions(tokens)))
        if shorter is not conversation:
            conversation = shorter
            rendered = render_answers(encoder.template, encoder.tokenizer, conversation, last_only=True)
    return UntruncatedExample(conversation, rendered, tokens, kept)


def _pair(encoder: Encoder, rows: RenderedRows, sequences: list[Tokens]) -> list[UntruncatedExample]:
    chosen, rejected = map(_with_positions, sequences)
    truncated = encoder.truncate_pair(rows[0][1], chosen, rejected)
    return [
        UntruncatedExample(conversation, rendered, tokens, _kept(tokens, short))
        for (_, conversation, rendered), tokens, short in zip(rows, sequences, truncated, strict=True)
    ]


def _with_positions(tokens: Tokens) -> Tokens:
    """The tokens with their positions in place of the labels, which show after truncation what it has kept."""
    return tokens._replace(labels=list(range(len(tokens.ids))))


def _kept(tokens: Tokens, truncated: Tokens) -> list[bool]:
    left = set(truncated.labels)
    return [place in left for place in range(len(tokens.ids))]
