"""The text of tokens, for a heat map and for bits per byte."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

UNFINISHED = "\ufffd"  # a decoder's placeholder for the first bytes of a character
CONTEXT = 8
"""Tokens before a token with which it is decoded, since a decoder treats the first one differently."""


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], places: Sequence[int]) -> tuple[str, ...]:
    """The text of some tokens of a sequence, by ascending positions.

    A character that takes several tokens is in the text of its last one; joined, neighbouring texts are their text.
    """
    texts: list[str] = []
    for _, group in groupby(enumerate(places), key=lambda one: one[1] - one[0]):
        run = [place for _, place in group]
        held = run[0]
        for place in run:
            start = max(0, held - CONTEXT)
            before, after = tokenizer.batch_decode(
                [list(ids[start:held]), list(ids[start : place + 1])], skip_special_tokens=False
            )
            text = after[len(before) :] if after.startswith(before) else tokenizer.decode([ids[place]])
            if text.endswith(UNFINISHED) and place != run[-1]:
                texts.append("")
            else:
                texts.append(text)
                held = place + 1
    return tuple(texts)


def text_bytes(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], places: Sequence[int]) -> int:
    """Number of bytes in UTF-8 of the text of some tokens, by ascending positions, without special tokens."""
    runs = [
        [ids[place] for _, place in group] for _, group in groupby(enumerate(places), key=lambda one: one[1] - one[0])
    ]
    return sum(len(text.encode("utf-8", "replace")) for text in tokenizer.batch_decode(runs, skip_special_tokens=True))
