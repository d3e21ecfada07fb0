"""Encodes a record again with the tokens that truncation removes, so that a view can show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.data.answer_ranges import render_answers
from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import PAIRS

if TYPE_CHECKING:
    from llf_core.data.encoder import Encoder, RenderedRows
    from llf_core.data.formats.conversation import Conversation
    from llf_core.data.label_mask import Tokens
    from llf_core.data.records import Record
    from llf_core.data.rendered import Rendered


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
