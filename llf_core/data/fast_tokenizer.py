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
    """Token ids `[tokens]`, int32, of concatenated pieces, and the start of each piece, `[pieces + 1]`."""

    ids: array[int]
    bounds: list[int]


def split_at(text: str, cuts: Sequence[int]) -> list[str]:
    """Split a text at positions where the tokenizer must not merge across; gives `len(cuts) + 1` pieces."""
    return [text[start:end] for start, end in pairwise((0, *cuts, len(text)))]


def concatenate(pieces: Sequence[array[int]]) -> Pieces:
    """Concatenate the token ids of pieces, `[seq]` each, int32."""
    bounds = [0, *np.cumsum([len(ids) for ids in pieces], dtype=np.int64).tolist()]
    return Pieces(array("i", b"".join(pieces)), bounds)


@dataclass
class FastTokenizer:
    """The fast implementation (`tokenizers` library) of a tokenizer, which tokenizes each text as a whole.

    Truncation, padding and the splitting of special tokens are switched off in the backend, and no special token is
    added.
    """

    backend: Tokenizer

    def pieces(self, texts: Sequence[str], cuts: Sequence[Sequence[int]]) -> Pieces:
        """Tokenize the pieces of texts separately, so that token boundaries are where generation has them.

        Args:
            cuts: positions in characters at which each text is split, ascending; two equal positions give an empty
                piece.
        """
        whole = [piece for text, own in zip(texts, cuts, strict=True) for piece in split_at(text, own)]
        return concatenate(self._encode(whole))

    def ids(self, texts: Sequence[str]) -> list[array[int]]:
        """Token ids of each text, `[seq]` each, int32, without special tokens."""
        ids, bounds = self.pieces(texts, [()] * len(texts))
        return [ids[start:end] for start, end in pairwise(bounds)]

    def locate(self, texts: Sequence[str], parts: Sequence[Spans]) -> list[tuple[array[int], Spans]]:
        """Token ids `[seq]`, int32, of each text, and the tokens `[start, end)` that share a character with each part.

        Args:
            parts: for each text, parts `[start, end)` in characters.
        """
        return [
            (ids, tuple(token_range(spans, first, last) for first, last in wanted))
            for (ids, spans), wanted in zip(self._with_spans(texts), parts, strict=True)
        ]

    def _encode(self, texts: Sequence[str]) -> list[array[int]]:
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
    """Tokens `[start, end)` that share a character with the characters `[first, last)`, by binary search."""
    start = bisect_right(spans, first, key=itemgetter(1))
    return start, bisect_left(spans, last, lo=start, key=itemgetter(0))
