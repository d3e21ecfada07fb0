"""Cuts conversations that are longer than `cutoff_len`; the header that an answer needs is never cut."""

from __future__ import annotations

from llf_core.data.errors import BadExample
from llf_core.data.mask import IGNORED, Tokens


def cut_lengths(source: int, target: int, cutoff: int) -> tuple[int, int]:
    """How many tokens of a question and of its answer are kept.

    Whichever of the two takes less than half of the room is kept whole; otherwise both shrink by the same factor
    (LLaMA-Factory's rule): `(3000, 2000, 1000) -> (600, 400)`.

    Args:
        source: tokens of the question, all before it included.
        target: tokens of the answer.
        cutoff: room for both.

    Returns:
        Tokens of the question and of the answer; together at most `cutoff`.
    """
    if target * 2 < cutoff:
        room = cutoff
    elif source * 2 < cutoff:
        room = cutoff - source
    else:
        room = cutoff * target // (source + target)
    kept = min(room, target)
    return min(max(cutoff - kept, 0), source), kept


def cut(tokens: Tokens, cutoff: int) -> Tokens:
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

    Raises:
        BadExample: there is no room for the opening of the first answer and one token of it.
    """
    if len(tokens.ids) <= cutoff:
        return tokens
    first = tokens.turns[0]
    if first.end > cutoff:
        source, target = cut_lengths(first.start, first.end - first.start, cutoff)
        if target == 0 and first.end > first.start:
            source, target = source - 1, 1
        if source < min(first.opening, first.start) or source <= 0:
            raise BadExample(f"cutoff_len {cutoff} leaves no room for the beginning of its answer")
        head = source - first.opening
        keep = [*range(head), *range(first.start - first.opening, first.start + target)]
    else:
        ends = [min(turn.end, cutoff) for turn in tokens.turns if turn.start < cutoff]
        keep = list(range(ends[-1]))
    return Tokens([tokens.ids[place] for place in keep], [tokens.labels[place] for place in keep], tokens.turns)


def learned(labels: list[int]) -> int:
    """How many labels are learned from: never the first of a sequence, which nothing predicts."""
    return sum(label != IGNORED for label in labels[1:])
