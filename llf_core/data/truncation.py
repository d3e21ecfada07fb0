"""Truncates conversations to `cutoff_len`; the header of an answer is never removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.ignore_index import IGNORED
from llf_core.data.errors import BadExample
from llf_core.data.label_mask import Tokens, Turn

if TYPE_CHECKING:
    from collections.abc import Sequence


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
