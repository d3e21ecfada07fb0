"""Tokenizes text with known answers and masks the labels."""

from __future__ import annotations

from array import array
from itertools import starmap
from typing import TYPE_CHECKING, NamedTuple

from llf_core.config.data import IGNORED
from llf_core.data.errors import BadExample
from llf_core.data.word_cache import concatenate, fast_tokenizer_of, split_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.conversation import Rendered
    from llf_core.data.word_cache import FastTokenizer, Pieces


class Turn(NamedTuple):
    """Token range `[start, end)` of an answer."""

    start: int
    end: int


class Tokens(NamedTuple):
    """A tokenized conversation.

    Attributes:
        ids: token ids `[seq]` of the whole text tokenized at once, as by `apply_chat_template`. For a template that
            ships with LLF, token ids of its pieces (see `Rendered.cuts`).
        labels: labels `[seq]`: the token id where it contributes to the loss, else -100.
        turns: ranges of the answers, in order.
    """

    ids: list[int]
    labels: list[int]
    turns: tuple[Turn, ...]


class Encoded(NamedTuple):
    """`Tokens` as int32 arrays, and the number of labels that are not -100."""

    ids: array[int]
    labels: array[int]
    turns: tuple[Turn, ...]
    learned: int

    def lists(self) -> Tokens:
        """Convert to lists, which truncation slices and compares. Only examples above `cutoff_len` need it."""
        return Tokens(self.ids.tolist(), self.labels.tolist(), self.turns)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Rendered],
    *,
    train_on_prompt: bool = False,
    library: FastTokenizer | None = None,
) -> list[Encoded | BadExample]:
    r"""Tokenize a batch of conversations and label every token that shares a character with an answer.

    ```
    text      <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n
    labels    -100 …                                              -100 Yo <|im_end|> \n
    ```

    What the template writes after an answer is part of it, including the newline after the end token, as in
    LLaMA-Factory. Generation stops at the end token, so the label on the newline has no effect on it.

    Args:
        train_on_prompt: whether the loss includes every token.
        library: fast implementation of the tokenizer; None to find it by `fast_tokenizer_of`.

    Returns:
        One entry for each conversation. It is a `BadExample` if a tokenizer without offsets splits a text differently
        once the answer follows.
    """
    library = library or fast_tokenizer_of(tokenizer)
    if any(rendered.cuts is not None for rendered in batch):
        return _encode_by_pieces(tokenizer, library, batch, train_on_prompt=train_on_prompt)
    if library is None:
        return [_encode_by_prefix(tokenizer, rendered, train_on_prompt=train_on_prompt) for rendered in batch]
    located = library.locate([rendered.text for rendered in batch], [rendered.answers for rendered in batch])
    return [build_labels(ids, starmap(Turn, places), train_on_prompt=train_on_prompt) for ids, places in located]


def _encode_by_pieces(
    tokenizer: PreTrainedTokenizerBase,
    library: FastTokenizer | None,
    batch: Sequence[Rendered],
    *,
    train_on_prompt: bool,
) -> list[Encoded | BadExample]:
    """Tokenize each piece of a text separately, so that an answer starts at a token boundary, as in generation."""
    texts, cuts = [rendered.text for rendered in batch], [rendered.cuts or () for rendered in batch]
    ids, bounds = library.pieces(texts, cuts) if library else _pieces(tokenizer, texts, cuts)
    found: list[Encoded | BadExample] = []
    piece = 0
    for rendered, own in zip(batch, cuts, strict=True):
        start, end = bounds[piece], bounds[piece + len(own) + 1]
        places = {len(rendered.text): end, **dict(zip((0, *own), bounds[piece : piece + len(own) + 1], strict=True))}
        turns = (Turn(places[first] - start, places[last] - start) for first, last in rendered.answers)
        found.append(build_labels(ids[start:end], turns, train_on_prompt=train_on_prompt))
        piece += len(own) + 1
    return found


def _pieces(tokenizer: PreTrainedTokenizerBase, texts: list[str], cuts: list[tuple[int, ...]]) -> Pieces:
    whole = [piece for text, own in zip(texts, cuts, strict=True) for piece in split_at(text, own)]
    found: list[list[int]] = tokenizer(whole, add_special_tokens=False, return_attention_mask=False, verbose=False)[
        "input_ids"
    ]
    return concatenate([array("i", ids) for ids in found])


def build_labels(ids: array[int], turns: Iterable[Turn], *, train_on_prompt: bool) -> Encoded:
    """Build labels `[seq]` from the ranges of the answers: the token id inside them, -100 elsewhere.

    Args:
        ids: token ids `[seq]`, int32.
        train_on_prompt: whether the loss includes every token.
    """
    turns = tuple(turns)
    if train_on_prompt:
        return Encoded(ids, ids[:], turns, len(ids))
    labels = array("i", (IGNORED,)) * len(ids)
    for turn in turns:
        labels[turn.start : turn.end] = ids[turn.start : turn.end]
    return Encoded(ids, labels, turns, sum(turn.end - turn.start for turn in turns))


def _encode_by_prefix(
    tokenizer: PreTrainedTokenizerBase, rendered: Rendered, *, train_on_prompt: bool
) -> Encoded | BadExample:
    """Without offsets, find each answer by tokenizing prefixes, whose tokens must be a prefix of all tokens."""

    def tokenized(end: int) -> list[int]:
        ids: list[int] = tokenizer(rendered.text[:end], add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    whole = tokenized(len(rendered.text))
    turns = []
    for first, last in rendered.answers:
        before, after = tokenized(first), tokenized(last)
        if whole[: len(before)] != before or whole[: len(after)] != after:
            return BadExample("the tokenizer splits the prompt differently when the response follows")
        turns.append(Turn(len(before), len(after)))
    return build_labels(array("i", whole), turns, train_on_prompt=train_on_prompt)
