"""Tokenizes texts by the fast implementation of a tokenizer, without a Python object for each token."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llf_core.data.errors import DataError
from llf_core.models.bounded_tokenizers import is_tokenizer_error, panics_as_errors
from llf_core.models.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tokenizers import Tokenizer

Spans = tuple[tuple[int, int], ...]
"""Ranges `[start, end)` in characters or tokens."""


class Pieces(NamedTuple):
    """Tokenized pieces of texts, concatenated.

    Attributes:
        ids: token ids `[tokens]`, int32.
        bounds: `[pieces + 1]`, start of each piece.
    """

    ids: array[int]
    bounds: list[int]


def split_at(text: str, cuts: Sequence[int]) -> list[str]:
    """Split a text at positions where the tokenizer must not merge across, such as the start of an answer.

    Returns:
        `len(cuts) + 1` pieces.
    """
    return [text[start:end] for start, end in pairwise((0, *cuts, len(text)))]


def concatenate(pieces: Sequence[array[int]]) -> Pieces:
    """Concatenate pieces to one array, which is sliced by bounds without a Python object for each piece.

    Args:
        pieces: token ids of each piece, `[seq]` each, int32.

    Returns:
        Token ids `[tokens]` and bounds `[pieces + 1]`.
    """
    bounds = [0, *np.cumsum([len(ids) for ids in pieces], dtype=np.int64).tolist()]
    return Pieces(array("i", b"".join(pieces)), bounds)


@dataclass
class FastTokenizer:
    """The fast implementation of a tokenizer, which tokenizes each text as a whole.

    Its methods switch off truncation, padding and the splitting of special tokens in the backend, which earlier users
    may have left on.

    Attributes:
        backend: tokenizer of the `tokenizers` library; it adds no special tokens here.
    """

    backend: Tokenizer

    def pieces(self, texts: Sequence[str], cuts: Sequence[Sequence[int]]) -> Pieces:
        """Tokenize the pieces of texts separately, so that token boundaries are where generation has them.

        Args:
            cuts: positions in characters at which each text is split, ascending; two equal positions give an empty
                piece.

        Returns:
            Token ids `[tokens]` of all pieces, int32; for each text, one piece more than it has cuts.
        """
        whole = [piece for text, own in zip(texts, cuts, strict=True) for piece in split_at(text, own)]
        return concatenate(self._encode(whole))

    def ids(self, texts: Sequence[str]) -> list[array[int]]:
        """Tokenize each text as a whole, without special tokens, since the chat template writes them.

        Returns:
            Token ids of each text, `[seq]` each, int32.
        """
        ids, bounds = self.pieces(texts, [()] * len(texts))
        return [ids[start:end] for start, end in pairwise(bounds)]

    def locate(self, texts: Sequence[str], parts: Sequence[Spans]) -> list[tuple[array[int], Spans]]:
        """Tokenize each text and find the token ranges of some of its parts, for labels of templates without markers.

        Args:
            parts: for each text, parts `[start, end)` in characters.

        Returns:
            For each text its token ids `[seq]`, int32, and for each part `[start, end)` in tokens: all tokens that
            share a character with it.
        """
        return [
            (ids, tuple(token_range(spans, first, last) for first, last in wanted))
            for (ids, spans), wanted in zip(self._with_spans(texts), parts, strict=True)
        ]

    def _encode(self, texts: Sequence[str]) -> list[array[int]]:
        """Tokenize texts with the library."""
        self._reset_options()
        # Repeated texts, such as a common system prompt, are tokenized once.
        distinct = list(dict.fromkeys(texts))
        # Faster than `encode_batch`, since it computes no offsets.
        with _encoding_errors():
            found = self.backend.encode_batch_fast(distinct, add_special_tokens=False)
        known = {text: array("i", one.ids) for text, one in zip(distinct, found, strict=True)}
        return [known[text] for text in texts]

    def _with_spans(self, texts: Sequence[str]) -> list[tuple[array[int], Spans]]:
        """Token ids of texts, and the characters `[start, end)` of each token."""
        self._reset_options()
        with _encoding_errors():
            found = self.backend.encode_batch(texts, add_special_tokens=False)
        return [(array("i", one.ids), tuple(one.offsets)) for one in found]

    def _reset_options(self) -> None:
        # Earlier users may have left these options on. Set only if they are: another thread may be using the tokenizer.
        if self.backend.truncation is not None:
            self.backend.no_truncation()
        if self.backend.padding is not None:
            self.backend.no_padding()
        if self.backend.encode_special_tokens:
            self.backend.encode_special_tokens = False


@contextmanager
def _encoding_errors() -> Iterator[None]:
    """Context manager that converts the library's encoding errors to `DataError`, also from another process."""
    try:
        with panics_as_errors():
            yield
    except Exception as error:
        if not is_tokenizer_error(error):
            raise
        raise DataError(
            f"The model's tokenizer cannot encode a text of the data: {first_line(error)} Its tokenizer.json may be "
            "damaged. Copy or download the model again, or remove the text."
        ) from error


def token_range(spans: Spans, first: int, last: int) -> tuple[int, int]:
    """Tokens `[start, end)` that share a character with the characters `[first, last)`, by binary search.

    Labels of an answer are set on this range.

    Args:
        spans: character range of each token, in order.
    """
    start = bisect_right(spans, first, key=itemgetter(1))
    return start, bisect_left(spans, last, lo=start, key=itemgetter(0))
