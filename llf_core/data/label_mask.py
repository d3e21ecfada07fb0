"""From text with marked answers to token ids and labels."""

from __future__ import annotations

from array import array
from itertools import starmap
from typing import TYPE_CHECKING, NamedTuple

from llf_core.config.ignore_index import IGNORED
from llf_core.data.errors import BadExample
from llf_core.data.word_cache import cut_apart, in_a_row, library_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.data.rendered import Rendered
    from llf_core.data.word_cache import Library, Pieces


class Turn(NamedTuple):
    """Where an answer stands in the token ids.

    Attributes:
        start: its first token.
        end: the token after its last.
    """

    start: int
    end: int


class Tokens(NamedTuple):
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


class Encoded(NamedTuple):
    """The same as `Tokens`, as arrays of int32: nothing that is stored as it is need become Python's numbers.

    Attributes:
        learned: labels that are learned from.
    """

    ids: array[int]
    labels: array[int]
    turns: tuple[Turn, ...]
    learned: int

    def lists(self) -> Tokens:
        """What is cut and compared."""
        return Tokens(self.ids.tolist(), self.labels.tolist(), self.turns)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Rendered],
    *,
    train_on_prompt: bool = False,
    library: Library | None = None,
) -> list[Encoded | BadExample]:
    r"""Tokenizes conversations together, and labels every token that shares a character with an answer.

    ```
    text      <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n
    labels    -100 …                                              -100 Yo <|im_end|> \n
    ```
    What the template writes to close an answer is learned with it, the newline after the end token too, as in
    LLaMA-Factory: nothing is generated after the end token, so that newline costs nothing and teaches nothing.

    Args:
        tokenizer: adds nothing of its own here; the template writes the special tokens.
        batch: rendered conversations.
        train_on_prompt: learn every token.
        library: of the tokenizer, where it is at hand already, see `library_of`.

    Returns:
        One entry a conversation; a `BadExample` where a tokenizer without offsets splits the text differently once
        the answer follows.
    """
    library = library or library_of(tokenizer)
    if any(rendered.cuts is not None for rendered in batch):
        return _encode_by_pieces(tokenizer, library, batch, train_on_prompt=train_on_prompt)
    if library is None:
        return [_encode_by_prefix(tokenizer, rendered, train_on_prompt=train_on_prompt) for rendered in batch]
    located = library.located([rendered.text for rendered in batch], [rendered.answers for rendered in batch])
    return [labelled(ids, starmap(Turn, places), train_on_prompt=train_on_prompt) for ids, places in located]


def _encode_by_pieces(
    tokenizer: PreTrainedTokenizerBase, library: Library | None, batch: Sequence[Rendered], *, train_on_prompt: bool
) -> list[Encoded | BadExample]:
    """Each piece of a text by itself: an answer begins with a token of its own, as when it is generated."""
    texts, cuts = [rendered.text for rendered in batch], [rendered.cuts or () for rendered in batch]
    ids, bounds = library.pieces(texts, cuts) if library else _pieces(tokenizer, texts, cuts)
    found: list[Encoded | BadExample] = []
    piece = 0
    for rendered, own in zip(batch, cuts, strict=True):
        start, end = bounds[piece], bounds[piece + len(own) + 1]
        places = {len(rendered.text): end, **dict(zip((0, *own), bounds[piece : piece + len(own) + 1], strict=True))}
        turns = (Turn(places[first] - start, places[last] - start) for first, last in rendered.answers)
        found.append(labelled(ids[start:end], turns, train_on_prompt=train_on_prompt))
        piece += len(own) + 1
    return found


def _pieces(tokenizer: PreTrainedTokenizerBase, texts: list[str], cuts: list[tuple[int, ...]]) -> Pieces:
    """The same of a tokenizer that is written in Python."""
    whole = [piece for text, own in zip(texts, cuts, strict=True) for piece in cut_apart(text, own)]
    found: list[list[int]] = tokenizer(whole, add_special_tokens=False, return_attention_mask=False, verbose=False)[
        "input_ids"
    ]
    return in_a_row([array("i", ids) for ids in found])


def labelled(ids: array[int], turns: Iterable[Turn], *, train_on_prompt: bool) -> Encoded:
    """Tokens of which those of the answers are learned, or all."""
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
    return labelled(array("i", whole), turns, train_on_prompt=train_on_prompt)
