"""From text with marked answers to token ids and labels."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from llf_core.config.labels import IGNORED
from llf_core.data.errors import BadExample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.render import Rendered

Offsets = list[tuple[int, int]]


@dataclass(frozen=True)
class Turn:
    """Where an answer stands in the token ids.

    Attributes:
        start: its first token.
        end: the token after its last.
    """

    start: int
    end: int


@dataclass(frozen=True)
class Tokens:
    """A conversation as tokens.

    Attributes:
        ids: those of the whole text tokenized at once, so the ones that `apply_chat_template` gives; of a template
            that ships with LLF, those of its pieces (see `Rendered.cuts`).
        labels: the id where it is learned, -100 where it is only read.
        turns: the answers, in order.
    """

    ids: list[int]
    labels: list[int]
    turns: tuple[Turn, ...]


def tokens_of(ids: list[int], offsets: Offsets, rendered: Rendered, *, train_on_prompt: bool = False) -> Tokens:
    r"""Labels every token that shares a character with an answer.

    ```
    text      <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n
    labels    -100 …                                              -100 Yo <|im_end|> \n
    ```
    What the template writes to close an answer is learned with it, the newline after the end token too, as in
    LLaMA-Factory: nothing is generated after the end token, so that newline costs nothing and teaches nothing.

    Args:
        ids: `[seq]`.
        offsets: `[seq]`, where each token begins and ends in the text.
        rendered: the text's answers.
        train_on_prompt: learn every token.
    """
    begins, ends = [begin for begin, _ in offsets], [end for _, end in offsets]
    turns = []
    for first, last in rendered.answers:
        start = bisect_right(ends, first)
        turns.append(Turn(start, bisect_left(begins, last, lo=start)))
    return _labelled(ids, tuple(turns), train_on_prompt=train_on_prompt)


def encode(
    tokenizer: PreTrainedTokenizerBase, batch: Sequence[Rendered], *, train_on_prompt: bool = False
) -> list[Tokens | BadExample]:
    """Tokenizes conversations together.

    Args:
        tokenizer: adds nothing of its own here; the template writes the special tokens.
        batch: rendered conversations.
        train_on_prompt: learn every token.

    Returns:
        One entry a conversation; a `BadExample` where a tokenizer without offsets splits the text differently once
        the answer follows.
    """
    if not batch:
        return []
    if any(rendered.cuts is not None for rendered in batch):
        return _encode_by_pieces(tokenizer, batch, train_on_prompt=train_on_prompt)
    if not tokenizer.is_fast:
        return [_encode_by_prefix(tokenizer, rendered, train_on_prompt=train_on_prompt) for rendered in batch]
    texts = [rendered.text for rendered in batch]
    encoded = tokenizer(
        texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
    )
    return [
        tokens_of(ids, offsets, rendered, train_on_prompt=train_on_prompt)
        for ids, offsets, rendered in zip(encoded["input_ids"], encoded["offset_mapping"], batch, strict=True)
    ]


def _encode_by_pieces(
    tokenizer: PreTrainedTokenizerBase, batch: Sequence[Rendered], *, train_on_prompt: bool
) -> list[Tokens | BadExample]:
    """Each piece of a text by itself: an answer begins with a token of its own, as when it is generated."""
    borders = [sorted({0, *(rendered.cuts or ()), len(rendered.text)}) for rendered in batch]
    texts = [
        rendered.text[start:end] for rendered, ends in zip(batch, borders, strict=True) for start, end in pairwise(ends)
    ]
    # A system prompt that many share, or an answer that comes again, is tokenized once.
    distinct = list(dict.fromkeys(texts))
    known = dict(zip(distinct, _ids(tokenizer, distinct), strict=True))
    pieces = iter(texts)
    found: list[Tokens | BadExample] = []
    for rendered, ends in zip(batch, borders, strict=True):
        ids: list[int] = []
        places = {0: 0}
        for end in ends[1:]:
            ids += known[next(pieces)]
            places[end] = len(ids)
        turns = tuple(Turn(places[first], places[last]) for first, last in rendered.answers)
        found.append(_labelled(ids, turns, train_on_prompt=train_on_prompt))
    return found


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The ids of texts; of a fast tokenizer straight from its library, which need not note where each token stands."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch_fast"):
        found: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        return found
    # Whoever used it before may have left these on. They are only touched then: another thread may be in the library.
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    if backend.encode_special_tokens:
        backend.encode_special_tokens = False
    return [one.ids for one in backend.encode_batch_fast(texts, add_special_tokens=False)]


def _labelled(ids: list[int], turns: tuple[Turn, ...], *, train_on_prompt: bool) -> Tokens:
    if train_on_prompt:
        return Tokens(ids, list(ids), turns)
    labels = [IGNORED] * len(ids)
    for turn in turns:
        labels[turn.start : turn.end] = ids[turn.start : turn.end]
    return Tokens(ids, labels, turns)


def _encode_by_prefix(
    tokenizer: PreTrainedTokenizerBase, rendered: Rendered, *, train_on_prompt: bool
) -> Tokens | BadExample:
    """Without offsets, a token's place is known only where the tokens of a prefix begin the tokens of the whole."""

    def tokenized(end: int) -> list[int]:
        ids: list[int] = tokenizer(rendered.text[:end], add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    whole = tokenized(len(rendered.text))
    turns = []
    for first, last in rendered.answers:
        before, after = tokenized(first), tokenized(last)
        if whole[: len(before)] != before or whole[: len(after)] != after:
            return BadExample("the tokenizer splits the prompt differently once the answer follows")
        turns.append(Turn(len(before), len(after)))
    return _labelled(whole, tuple(turns), train_on_prompt=train_on_prompt)
