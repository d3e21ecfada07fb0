"""Cuts conversations that are longer than `cutoff_len`; the header that an answer needs is never cut."""

from __future__ import annotations

from llf_core.config.labels import IGNORED
from llf_core.data.errors import BadExample
from llf_core.data.mask import Tokens, Turn


def cut_lengths(source: int, target: int, cutoff: int) -> tuple[int, int]:
    """How many tokens of a question and of its answer are kept.

    Either may take half of the room, and what the other leaves: `(3000, 2000, 1000) -> (500, 500)`,
    `(100, 2000, 1000) -> (100, 900)`. (LLaMA-Factory divides in proportion, so that a question of 1,100 tokens
    before an answer of 50,000 keeps 44 at a cutoff of 2,048.)

    Args:
        source: tokens of the question, all before it included.
        target: tokens of the answer.
        cutoff: room for both.

    Returns:
        Tokens of the question and of the answer; together at most `cutoff`.
    """
    kept = min(source, max(cutoff - target, cutoff // 2))
    return kept, min(target, cutoff - kept)


def cut(tokens: Tokens, cutoff: int, opening: int) -> Tokens:
    r"""Shortens a conversation to at most `cutoff` tokens.

    Of the first exchange, the question loses the end of its words and the answer its end, by `cut_lengths`; the
    opening of the answer stays. Of later exchanges the answers lose their ends, and one whose answer no longer
    fits goes entirely. An answer that was cut has lost its end token, so nobody learns to stop in mid-sentence.

    ```
    question…………<|im_end|>\n<|im_start|>assistant\nanswer…………<|im_end|>\n
    question…<|im_end|>\n<|im_start|>assistant\nanswer…
    ```

    Args:
        tokens: at least one answer.
        cutoff: `cutoff_len`.
        opening: how many tokens before the first answer are never cut.

    Raises:
        BadExample: there is no room for the opening of the first answer and one token of it.
    """
    if len(tokens.ids) <= cutoff:
        return tokens
    first = tokens.turns[0]
    if first.end <= cutoff:
        turns = tuple(Turn(turn.start, min(turn.end, cutoff)) for turn in tokens.turns if turn.start < cutoff)
        last = turns[-1].end
        return Tokens(tokens.ids[:last], tokens.labels[:last], turns)
    source, target = cut_lengths(first.start, first.end - first.start, cutoff)
    source = max(source, opening)
    target = min(target, cutoff - source)
    if target < 1:
        raise BadExample(f"cutoff_len {cutoff} leaves no room for its answer after the opening of its turn")

    def kept(values: list[int]) -> list[int]:
        return values[: source - opening] + values[first.start - opening : first.start + target]

    return Tokens(kept(tokens.ids), kept(tokens.labels), (Turn(source, source + target),))


def learned(labels: list[int]) -> int:
    """How many labels are learned from: never the first of a sequence, which nothing predicts."""
    return sum(label != IGNORED for label in labels[1:])
