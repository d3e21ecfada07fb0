"""Token ids of texts by way of their words, each of which the tokenizer's library sees once.

A byte-level BPE takes a text apart before every single blank that stands between two words, and joins nothing across
it. So the ids of a text are those of its words one after the other, and a word that was met before is looked up, which
takes a fiftieth of the time.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import accumulate, chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Spans = tuple[tuple[int, int], ...]

NUL = "\0"
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

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        self._bare()
        # A system prompt that many share, or an answer that comes again, is tokenized once.
        distinct = list(dict.fromkeys(texts))
        # Faster than `encode_batch`: it does not note where each token stands.
        found = self.backend.encode_batch_fast(distinct, add_special_tokens=False)
        known = {text: one.ids for text, one in zip(distinct, found, strict=True)}
        return [known[text] for text in texts]

    def located(self, texts: Sequence[str], parts: Sequence[Spans]) -> list[tuple[list[int], Spans]]:
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

    def _with_spans(self, texts: Sequence[str]) -> list[tuple[list[int], Spans]]:
        """The ids of texts, and which characters `[start, end)` each token stands for."""
        self._bare()
        return [(one.ids, tuple(one.offsets)) for one in self.backend.encode_batch(texts, add_special_tokens=False)]

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
class Words(Library):
    """A library whose texts are those of their words; it is asked for each word once."""

    _ids: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _spans: dict[str, Spans] = field(default_factory=dict)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        known = self._known(texts)
        whole = iter(super().ids([text for text, parts in zip(texts, known, strict=True) if parts is None]))
        return [next(whole) if parts is None else list(chain.from_iterable(parts[1])) for parts in known]

    def located(self, texts: Sequence[str], parts: Sequence[Spans]) -> list[tuple[list[int], Spans]]:
        """The ids of each text, and where in them some of its parts stand; see `Library.located`."""
        known = self._known(texts)
        unknown = [place for place, one in enumerate(known) if one is None]
        whole = iter(super().located([texts[place] for place in unknown], [parts[place] for place in unknown]))
        return [
            next(whole) if one is None else self._in_words(*one, wanted)
            for one, wanted in zip(known, parts, strict=True)
        ]

    def _in_words(self, words: list[str], pieces: list[tuple[int, ...]], wanted: Spans) -> tuple[list[int], Spans]:
        characters, tokens = [0, *accumulate(map(len, words))], [0, *accumulate(map(len, pieces))]
        places = []
        for first, last in wanted:
            start, end = (self._place(words, characters, tokens, border) for border in (first, last))
            places.append((start[1], max(start[1], end[0])))
        return list(chain.from_iterable(pieces)), tuple(places)

    def _place(self, words: list[str], characters: list[int], tokens: list[int], border: int) -> tuple[int, int]:
        """The first token that begins at or after a border, and the first that ends after it."""
        number = bisect_right(characters, border) - 1
        if number == len(words):
            return tokens[-1], tokens[-1]
        word, inside = words[number], border - characters[number]
        spans = self._spans.get(word)
        if spans is None:
            ((_, spans),) = self._with_spans([word])
            if len(word) <= LONG and len(self._spans) < MOST:
                self._spans[word] = spans
        begins = bisect_left(spans, inside, key=itemgetter(0))
        ends = bisect_right(spans, inside, key=itemgetter(1))
        return tokens[number] + begins, tokens[number] + ends

    def _known(self, texts: Sequence[str]) -> list[tuple[list[str], list[tuple[int, ...]]] | None]:
        """Of each text its words and the ids of each; None where the library must take it whole."""
        split = [text.replace(" ", f"{NUL} ").split(NUL) if NUL not in text else [text] for text in texts]
        passing = self._learn(set().union(*split))
        found: list[tuple[list[str], list[tuple[int, ...]]] | None] = []
        for words in split:
            try:
                found.append((words, [self._ids[word] for word in words]))
            except KeyError:
                found.append(None)
        for word in passing:
            self._ids.pop(word, None)  # another thread may have met it too
        return found

    def _learn(self, words: set[str]) -> list[str]:
        """Gets the ids of the words that are new and stand alone; returns those that need not be kept."""
        if len(self._ids) > MOST:
            self._ids.clear()
            self._spans.clear()
        new = [word for word in words if word not in self._ids and _stands_alone(word)]
        # Tuples, since the garbage collector leaves those of numbers alone.
        self._ids |= zip(new, map(tuple, super().ids(new)), strict=True)
        return [word for word in new if len(word) > LONG]


def library_of(tokenizer: PreTrainedTokenizerBase) -> Library | None:
    """The library of a tokenizer, by words where they are known to be apart; None for one that is written in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None) if tokenizer.is_fast else None
    if backend is None:
        return None
    return Words(backend) if _splits_before_blanks(backend) else Library(backend)


def _stands_alone(word: str) -> bool:
    """Whether a word, with the blank before it, has no further white space at its ends and no sign that parts words."""
    body = word.removeprefix(" ")
    return (not word or bool(body)) and not body[:1].isspace() and not body[-1:].isspace() and NUL not in body


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
