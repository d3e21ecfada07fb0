"""Token ids of texts by way of their words, each of which the tokenizer's library sees once.

A byte-level BPE takes a text apart before every single blank that stands between two words, and joins nothing across
it. So the ids of a text are those of its words one after the other, and a word that was met before is looked up.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import chain, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Spans = tuple[tuple[int, int], ...]

FIRST = "\0"
"""Stands before the first word of a text: the same letters after a blank are other tokens."""
BETWEEN = re.compile(r" (?<=\S )(?=\S)")
"""A single blank between two words. (Python's white space is all of Unicode's and a few signs more.)"""
LONG = 40
"""Characters of a word that is not kept: such are rare, and each its own."""
MOST = 200_000
"""Words that are kept; about 50 MB."""

# Patterns by which byte-level tokenizers take texts apart: GPT-2's, Llama 3's, Qwen's, DeepSeek's, GPT-4o's. In none
# can a match hold a blank after another sign that is no white space, and none looks back.
ENDINGS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
MAIN = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + ENDINGS,
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + ENDINGS,
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    + ENDINGS,
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + ENDINGS,
}
BESIDE = {r"\p{N}{1,3}", r"\p{N}", "[一-龥\u3040-ゟ\u30a0-ヿ]+"}
"""Patterns without blanks that take parts out beforehand."""


@dataclass
class Library:
    """The library of a tokenizer, which takes each text as a whole.

    Attributes:
        backend: the library's own tokenizer; it adds nothing of its own here.
    """

    backend: Tokenizer

    def ids(self, texts: Sequence[str]) -> list[array[int]]:
        """The ids of each text."""
        self._bare()
        # A system prompt that many share, or an answer that comes again, is tokenized once.
        distinct = list(dict.fromkeys(texts))
        # Faster than `encode_batch`: it does not note where each token stands.
        found = self.backend.encode_batch_fast(distinct, add_special_tokens=False)
        known = {text: array("i", one.ids) for text, one in zip(distinct, found, strict=True)}
        return [known[text] for text in texts]

    def located(self, texts: Sequence[str], parts: Sequence[Spans]) -> list[tuple[array[int], Spans]]:
        """The ids of each text, and where in them some of its parts stand.

        Args:
            texts: to be tokenized.
            parts: of each text, parts `[start, end)` in characters.

        Returns:
            Of each text its ids, and of each part `[start, end)` in tokens: those that share a character with it.
        """
        return [
            (ids, tuple(places_in(spans, first, last) for first, last in wanted))
            for (ids, spans), wanted in zip(self._with_spans(texts), parts, strict=True)
        ]

    def _with_spans(self, texts: Sequence[str]) -> list[tuple[array[int], Spans]]:
        """The ids of texts, and which characters `[start, end)` each token stands for."""
        self._bare()
        return [
            (array("i", one.ids), tuple(one.offsets))
            for one in self.backend.encode_batch(texts, add_special_tokens=False)
        ]

    def _bare(self) -> None:
        # Whoever used it before may have left these on. They are only touched then: another thread may be using it.
        if self.backend.truncation is not None:
            self.backend.no_truncation()
        if self.backend.padding is not None:
            self.backend.no_padding()
        if self.backend.encode_special_tokens:
            self.backend.encode_special_tokens = False


def places_in(spans: Spans, first: int, last: int) -> tuple[int, int]:
    """The tokens `[start, end)` that share a character with the characters `[first, last)`.

    Args:
        spans: of each token, in order.
        first: where a part of the text begins.
        last: where it ends.
    """
    start = bisect_right(spans, first, key=itemgetter(1))
    return start, bisect_left(spans, last, lo=start, key=itemgetter(0))


@dataclass
class Found:
    """Texts in words and tokens, all in a row.

    Attributes:
        words: of all texts; the first one of each begins with `FIRST`.
        texts: `[texts + 1]`, where the words of each text begin.
        ends: `[words]`, where the tokens of each word end.
        ids: `[tokens]`.
    """

    words: list[str]
    texts: NDArray[np.int64]
    ends: NDArray[np.int64]
    ids: NDArray[np.int32]

    def bounds(self) -> list[int]:
        """`[texts + 1]`, where the tokens of each text begin."""
        ends = np.concatenate([[0], self.ends])
        bounds: list[int] = ends[self.texts].tolist()
        return bounds


@dataclass
class Words(Library):
    """A library whose texts are those of their words; it is asked for each word once.

    Python sees each different word of a chunk once; what is done for every word is done by arrow and numpy.
    """

    _known: dict[str, bytes] = field(default_factory=dict)
    _spans: dict[str, Spans] = field(default_factory=dict)

    def ids(self, texts: Sequence[str]) -> list[array[int]]:
        """The ids of each text."""
        found = self._find(texts)
        ids = array("i", found.ids.tobytes())
        return [ids[start:end] for start, end in pairwise(found.bounds())]

    def located(self, texts: Sequence[str], parts: Sequence[Spans]) -> list[tuple[array[int], Spans]]:
        """The ids of each text, and where in them some of its parts stand; see `Library.located`."""
        found = self._find(texts)
        ids, bounds = array("i", found.ids.tobytes()), found.bounds()
        # Where words end in characters; in front of each but the first of a text is a blank, where that has `FIRST`.
        lengths = np.fromiter(map(len, found.words), np.int64, len(found.words))
        lengths += 1
        lengths[found.texts[:-1]] -= 2
        placed = []
        for number, wanted in enumerate(parts):
            own = slice(found.texts[number], found.texts[number + 1])
            characters, tokens = np.cumsum(lengths[own]), found.ends[own] - bounds[number]
            places = []
            for first, last in wanted:
                start, end = (self._place(found.words[own], characters, tokens, border) for border in (first, last))
                places.append((start[1], max(start[1], end[0])))
            placed.append((ids[bounds[number] : bounds[number + 1]], tuple(places)))
        return placed

    def _place(
        self, words: list[str], characters: NDArray[np.int64], tokens: NDArray[np.int64], border: int
    ) -> tuple[int, int]:
        """The first token that begins at or after a border, and the first that ends after it."""
        number = int(np.searchsorted(characters, border, side="right"))
        if number == len(words):
            return int(tokens[-1]), int(tokens[-1])
        word = _written(words[number])
        inside = border - (int(characters[number - 1]) if number else 0)
        spans = self._spans.get(word)
        if spans is None:
            ((_, spans),) = self._with_spans([word])
            if len(word) <= LONG and len(self._spans) < MOST:
                self._spans[word] = spans
        begins = bisect_left(spans, inside, key=itemgetter(0))
        ends = bisect_right(spans, inside, key=itemgetter(1))
        before = int(tokens[number - 1]) if number else 0
        return before + begins, before + ends

    def _find(self, texts: Sequence[str]) -> Found:
        import pyarrow as pa

        split = [_in_words(text) for text in texts]
        words = list(chain.from_iterable(split))
        coded = pa.array(words, pa.string()).dictionary_encode()
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        ids = self._ids(coded.dictionary.to_pylist())
        which = coded.indices.to_numpy()
        lengths = np.fromiter(map(len, ids), np.int64, len(ids)) // 4
        starts = np.cumsum(lengths) - lengths
        counts = lengths[which]
        ends = np.cumsum(counts)
        values = np.frombuffer(b"".join(ids), np.int32)
        total = int(ends[-1]) if len(ends) else 0
        places = np.repeat(starts[which] - (ends - counts), counts) + np.arange(total)
        begin = np.cumsum([0, *map(len, split)])
        return Found(words, begin, ends, values[places])

    def _ids(self, words: list[str]) -> list[bytes]:
        """The ids of different words, as bytes of int32."""
        known = self._known
        ids = [known.get(word) for word in words]
        new = [word for word, found in zip(words, ids, strict=True) if found is None]
        made = {
            word: found.tobytes()
            for word, found in zip(new, super().ids([_written(word) for word in new]), strict=True)
        }
        if len(known) > MOST:
            known.clear()
        known.update((word, found) for word, found in made.items() if len(word) <= LONG)
        return [made[word] if found is None else found for word, found in zip(words, ids, strict=True)]


def _in_words(text: str) -> list[str]:
    """A text taken apart at the blanks between its words, with `FIRST` before it."""
    if FIRST in text:
        return [FIRST + text]
    # Then every blank is one between words, at the beginning or at the end. A loop over these takes ten times as long.
    plain = (
        text.isascii()
        and "  " not in text
        and "\n " not in text
        and " \n" not in text
        and "\t" not in text
        and "\r" not in text
        and "\v" not in text
        and "\f" not in text
        and "\x1c" not in text
        and "\x1d" not in text
        and "\x1e" not in text
        and "\x1f" not in text
    )
    return (FIRST + text).split(" ") if plain else BETWEEN.split(FIRST + text)


def _written(word: str) -> str:
    """A word as it stands in its text."""
    return word[1:] if word.startswith(FIRST) else f" {word}"


def library_of(tokenizer: PreTrainedTokenizerBase) -> Library | None:
    """The library of a tokenizer, by words where they are known to be apart; None for one that is written in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None) if tokenizer.is_fast else None
    if backend is None:
        return None
    return Words(backend) if _splits_before_blanks(backend) else Library(backend)


def _splits_before_blanks(backend: Tokenizer) -> bool:
    """Whether a tokenizer always takes a text apart before a single blank between two words."""
    model = backend.model
    if type(model).__name__ != "BPE" or model.dropout or backend.pre_tokenizer is None:
        return False
    if backend.normalizer is not None and type(backend.normalizer).__name__ != "NFC":
        return False
    added = backend.get_added_tokens_decoder().values()
    if any(one.lstrip or one.rstrip or one.single_word or any(map(str.isspace, one.content)) for one in added):
        return False
    state: dict[str, Any] = json.loads(backend.pre_tokenizer.__getstate__())
    parts: list[dict[str, Any]] = state["pretokenizers"] if state["type"] == "Sequence" else [state]
    splits = [_splits(part) for part in parts]
    return None not in splits and True in splits and parts[-1]["type"] == "ByteLevel"


def _splits(part: dict[str, Any]) -> bool | None:
    """Whether a pre-tokenizer parts words at blanks; None where it is not known."""
    if part["type"] == "ByteLevel":
        return None if part["add_prefix_space"] else bool(part["use_regex"])
    if part["type"] == "Digits":
        return False
    if part["type"] == "Split" and part["behavior"] == "Isolated" and not part["invert"]:
        pattern = part["pattern"].get("Regex")
        return True if pattern in MAIN else False if pattern in BESIDE else None
    return None
