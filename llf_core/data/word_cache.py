"""Tokenizes texts by words, with a cache of the token ids of each word, and by a tokenizer's fast implementation.

A byte-level BPE tokenizer splits a text before every single space between two words, and merges nothing across it. So
the token ids of a text are those of its words.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_left, bisect_right
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, chain, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llf_core.data.errors import BadExample, DataError
from llf_core.models.bounded_templates import is_tokenizer_error, panics_as_errors
from llf_core.models.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    from llf_core.data.conversation import Conversation, Message


MAX_WORD_LENGTH = 40
"""Maximum number of characters of a cached word; longer ones are rarely repeated."""

MAX_WORDS = 200_000
"""Maximum number of cached words; about 50 MB."""
WORDS_PER_CALL = 64

SPACE_SYMBOL = "\u0120"
"""Representation of a space in a byte-level vocabulary."""


@dataclass
class WordTable:
    """Concatenated texts as bytes, words and tokens.

    Attributes:
        data: all texts, UTF-8.
        words: `[words + 1]`, first byte of each word.
        tokens: `[words + 1]`, first token of each word.
        ids: token ids `[tokens]`.
    """

    data: bytes
    words: NDArray[np.int64]
    tokens: NDArray[np.int64]
    ids: NDArray[np.int32]


Spans = tuple[tuple[int, int], ...]
"""Ranges `[start, end)` in characters or tokens."""


class Pieces(NamedTuple):
    """Token ids `[tokens]`, int32, of concatenated pieces, and the start of each piece, `[pieces + 1]`."""

    ids: array[int]
    bounds: list[int]


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


@dataclass
class CachedTokenizer(FastTokenizer):
    """A fast tokenizer whose texts are tokenized by words, with a cache.

    Python handles each distinct word of a chunk once; work on every word is done by Arrow and NumPy.
    """

    _known: dict[str, bytes] = field(default_factory=dict)
    _spans: dict[str, Spans] = field(default_factory=dict)
    _signs: re.Pattern[bytes] | None = None

    def __post_init__(self) -> None:
        """Collect the tokens that split a text wherever they occur; of two with a common prefix, the longer first."""
        added = self.backend.get_added_tokens_decoder().values()
        signs = sorted((one.content.encode() for one in added if not one.normalized), key=len, reverse=True)
        if signs:
            self._signs = re.compile(b"|".join(map(re.escape, signs)))

    def pieces(self, texts: Sequence[str], cuts: Sequence[Sequence[int]]) -> Pieces:
        """Tokenize the pieces of texts separately; see `FastTokenizer.pieces`."""
        places = byte_offsets(texts, cuts)
        borders = np.fromiter(chain.from_iterable(places), np.int64)
        found = self._find("".join(texts).encode(), borders)
        bounds = [*found.tokens[np.searchsorted(found.words, borders)].tolist(), len(found.ids)]
        return Pieces(array("i", found.ids.tobytes()), bounds)

    def locate(self, texts: Sequence[str], parts: Sequence[Spans]) -> list[tuple[array[int], Spans]]:
        """Tokenize each text and find the token ranges of some of its parts; see `FastTokenizer.locate`."""
        places = byte_offsets(texts, [tuple(chain.from_iterable(own)) for own in parts])
        starts = np.array([own[0] for own in places], np.int64)
        found = self._find("".join(texts).encode(), starts)
        ids = array("i", found.ids.tobytes())
        bounds = [*found.tokens[np.searchsorted(found.words, starts)].tolist(), len(ids)]
        placed = []
        for (start, end), (_, *ends) in zip(pairwise(bounds), places, strict=True):
            spans = []
            for first, last in zip(ends[::2], ends[1::2], strict=True):
                begin = self._around(found, first)[1]
                spans.append((begin - start, max(begin, self._around(found, last)[0]) - start))
            placed.append((ids[start:end], tuple(spans)))
        return placed

    def _around(self, found: WordTable, place: int) -> tuple[int, int]:
        """The first token that begins at or after a byte, and the first that ends after it."""
        number = int(np.searchsorted(found.words, place, side="right")) - 1
        before, start = int(found.tokens[number]), int(found.words[number])
        if place == start:
            return before, before
        written = found.data[start : found.words[number + 1]]
        word, character = written.decode(), len(written[: place - start].decode())
        spans = self._spans.get(word)
        if spans is None:
            ((_, spans),) = self._with_spans([word])
            if len(word) <= MAX_WORD_LENGTH and len(self._spans) < MAX_WORDS:
                self._spans[word] = spans
        begins = bisect_left(spans, character, key=itemgetter(0))
        return before + begins, before + bisect_right(spans, character, key=itemgetter(1))

    def _find(self, data: bytes, borders: NDArray[np.int64]) -> WordTable:
        """Words of texts and their tokens; no word spans a border."""
        import pyarrow as pa

        words = word_starts(data, borders, self._signs)
        written = pa.StringArray.from_buffers(
            len(words) - 1, pa.py_buffer(words.astype(np.int32)), pa.py_buffer(data)
        ).dictionary_encode()
        ids = self._ids(written.dictionary.to_pylist())
        which = written.indices.to_numpy()
        lengths = np.fromiter(map(len, ids), np.int64, len(ids)) // 4
        starts = np.cumsum(lengths) - lengths
        counts = lengths[which]
        tokens = np.concatenate([[0], np.cumsum(counts)])
        values = np.frombuffer(b"".join(ids), np.int32)
        places = np.repeat(starts[which] - tokens[:-1], counts) + np.arange(tokens[-1])
        return WordTable(data, words, tokens, values[places])

    def _ids(self, words: list[str]) -> list[bytes]:
        """Token ids of distinct words, as bytes of int32."""
        known = self._known
        ids = [known.get(word) for word in words]
        new = [word for word, found in zip(words, ids, strict=True) if found is None]
        made = self._new(new)
        if len(known) > MAX_WORDS:
            known.clear()
        known.update((word, found) for word, found in made.items() if len(word) <= MAX_WORD_LENGTH)
        return [made[word] if found is None else found for word, found in zip(words, ids, strict=True)]

    def _new(self, words: list[str]) -> dict[str, bytes]:
        """Token ids of words that are not in the cache.

        A call of the library costs more than tokenizing a word, so words are joined with spaces. A token that begins
        with a space marks the start of a word, so that the ids can be separated again.
        """
        apart = [word for word in words if word[0] != " " or word.split() != [word[1:]]]
        alone = set(apart)
        joined = [word for word in words if word not in alone]
        groups = [joined[start : start + WORDS_PER_CALL] for start in range(0, len(joined), WORDS_PER_CALL)]
        made: dict[str, bytes] = {}
        tokens = self._encode(["".join(group) for group in groups])
        blank_first = self._blank_first(set(chain.from_iterable(tokens)))
        for group, ids in zip(groups, tokens, strict=True):
            begins = [place for place, token in enumerate(ids) if token in blank_first]
            if len(begins) == len(group):
                pieces = pairwise([*begins, len(ids)])
                made.update((word, ids[start:end].tobytes()) for word, (start, end) in zip(group, pieces, strict=True))
            else:
                apart += group
        made.update((word, ids.tobytes()) for word, ids in zip(apart, self._encode(apart), strict=True))
        return made

    def _blank_first(self, ids: set[int]) -> set[int]:
        """Token ids that begin with a space. Searching the whole vocabulary takes longer than a small data set."""
        name = self.backend.id_to_token
        return {one for one in ids if (name(one) or "").startswith(SPACE_SYMBOL)}


def fast_tokenizer_of(tokenizer: PreTrainedTokenizerBase) -> FastTokenizer | None:
    """Fast implementation of a tokenizer, with a word cache if its pattern splits texts before spaces; else None."""
    backend = getattr(tokenizer, "backend_tokenizer", None) if tokenizer.is_fast else None
    return None if backend is None else fast_tokenizer_of_backend(backend)


def fast_tokenizer_of_backend(backend: Tokenizer) -> FastTokenizer:
    """Fast implementation of a tokenizer of the `tokenizers` library, as of a changed copy; see `fast_tokenizer_of`."""
    return CachedTokenizer(backend) if splits_before_blanks(backend) else FastTokenizer(backend)


BLANK = 0x20

SPACES = np.zeros(256, dtype=bool)
"""Single bytes that are whitespace in Python, whose definition is wider than Unicode's."""
SPACES[[*range(0x09, 0x0E), *range(0x1C, 0x21)]] = True

WIDE = [*"\x85\xa0\u1680", *map(chr, range(0x2000, 0x200B)), *"\u2028\u2029\u202f\u205f\u3000"]
"""Whitespace that has two or three bytes in UTF-8."""


def byte_offsets(texts: Sequence[str], places: Sequence[Sequence[int]]) -> list[list[int]]:
    """Byte offsets (UTF-8) of each text in the concatenation, and of positions in it."""
    found, start = [], 0
    for text, own in zip(texts, places, strict=True):
        if text.isascii():
            found.append([start, *(start + place for place in own)])
            start += len(text)
        else:
            found.append([start, *(start + len(text[:place].encode()) for place in own)])
            start += len(text.encode())
    return found


def word_starts(data: bytes, borders: NDArray[np.int64], signs: re.Pattern[bytes] | None) -> NDArray[np.int64]:
    """First byte of each word, `[words + 1]`: at borders, around special tokens, and at spaces between two words.

    Args:
        data: the texts, UTF-8.
        borders: bytes where a text or piece begins, ascending, the first one 0.
        signs: pattern of the tokens that split a text wherever they occur.
    """
    raw = np.frombuffer(data, np.uint8)
    begins = np.zeros(len(raw) + 1, dtype=bool)
    blanks = np.flatnonzero(raw == BLANK)
    before, after = blanks - 1, np.minimum(blanks + 1, len(raw) - 1)
    apart = ~(SPACES[raw[before]] | SPACES[raw[after]])
    if not data.isascii():
        apart &= ~(_ends_wide(raw, before) | _begins_wide(raw, after))
    begins[blanks[apart]] = True
    if signs is not None:
        around = np.array([match.span() for match in signs.finditer(data)], np.int64).reshape(-1, 2)
        # A match across a border is not a token, and the matches after it may be wrong.
        if (np.searchsorted(borders, around[:, 0], side="right") == np.searchsorted(borders, around[:, 1])).all():
            borders = np.concatenate([borders, around.ravel()])
    # A space at the end or the beginning of a text is not between two words; the first word includes the latter.
    begins[borders[borders > 0] - 1] = False
    begins[borders] = True
    return np.append(np.flatnonzero(begins[: len(raw)]), len(raw))


def _begins_wide(raw: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether multi-byte whitespace begins at a position."""
    found = np.isin(raw[places], [one.encode()[0] for one in WIDE])
    begun = places[found][:, None] + np.arange(3)
    read = raw[np.minimum(begun, len(raw) - 1)]
    found[found] = _is_one(read, [one.encode() for one in WIDE])
    return found


def _ends_wide(raw: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether multi-byte whitespace ends at a position, judged by its last two bytes."""
    found = np.isin(raw[places], [one.encode()[-1] for one in WIDE])
    read = raw[places[found][:, None] + np.arange(-1, 1)]
    found[found] = _is_one(read, [one.encode()[-2:] for one in WIDE])
    return found


def _is_one(read: NDArray[np.uint8], wanted: list[bytes]) -> NDArray[np.bool_]:
    """Whether each row of bytes begins with one of the given sequences."""
    found = np.zeros(len(read), dtype=bool)
    for one in set(wanted):
        found |= (read[:, : len(one)] == list(one)).all(axis=1)
    return found


# Patterns with which byte-level tokenizers split texts: GPT-2's, Llama 3's, Qwen's, DeepSeek's, GPT-4o's. None can
# match a space after a character that is not white space, and none has a lookbehind.
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
"""Patterns without spaces that split off parts before."""


def splits_before_blanks(backend: Tokenizer) -> bool:
    """Whether a tokenizer always splits a text before a single space between two words.

    Then the token ids of a text are those of its words. Proven for byte-level BPE tokenizers with a pattern of `MAIN`.
    """
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
    """Whether a pre-tokenizer splits words at spaces; None if unknown."""
    if part["type"] == "ByteLevel":
        return None if part["add_prefix_space"] else bool(part["use_regex"])
    if part["type"] == "Digits":
        return False
    if part["type"] == "Split" and part["behavior"] == "Isolated" and not part["invert"]:
        pattern = part["pattern"].get("Regex")
        return True if pattern in MAIN else False if pattern in BESIDE else None
    return None


def split_at(text: str, cuts: Sequence[int]) -> list[str]:
    """Split a text at positions where the tokenizer must not merge across; gives `len(cuts) + 1` pieces."""
    return [text[start:end] for start, end in pairwise((0, *cuts, len(text)))]


def concatenate(pieces: Sequence[array[int]]) -> Pieces:
    """Concatenate the token ids of pieces, `[seq]` each, int32."""
    bounds = [0, *np.cumsum([len(ids) for ids in pieces], dtype=np.int64).tolist()]
    return Pieces(array("i", b"".join(pieces)), bounds)


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


SPLIT = "\ue004"
"""Marker (private use) inside a special token that is read as text. It leaves no token."""


@dataclass
class SplittingTokenizer(FastTokenizer):
    """A fast tokenizer that splits special tokens of the data at `SPLIT`, a token that is dropped.

    Attributes:
        places: for each special token of the model, the position of `SPLIT` in it: after its first token as text.
    """

    places: dict[str, int]

    @cached_property
    def _inner(self) -> FastTokenizer:
        return fast_tokenizer_of_backend(self.backend)

    @cached_property
    def _mark(self) -> int:
        mark = self.backend.token_to_id(SPLIT)
        assert mark is not None  # noqa: S101 - `splitting_tokenizer` has added it
        return mark

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.places, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def marked(self, conversation: Conversation) -> Conversation:
        """Put `SPLIT` into the special tokens in all texts of a conversation, before it is rendered."""
        rejected, tools = conversation.rejected, conversation.tools
        return replace(
            conversation,
            tools=None if tools is None else tuple(map(self._value, tools)),
            messages=tuple(self._message(one) for one in conversation.messages),
            rejected=None if rejected is None else self._message(rejected),
        )

    def _message(self, message: Message) -> Message:
        return {key: value if key == "role" else self._value(value) for key, value in message.items()}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            if SPLIT in value:
                raise BadExample("its text has the private-use character U+E004")
            return self._pattern.sub(self._split, value)
        if isinstance(value, dict):
            return {self._value(key): self._value(one) for key, one in value.items()}
        return type(value)(map(self._value, value)) if isinstance(value, list | tuple) else value

    def _split(self, match: re.Match[str]) -> str:
        place = self.places[match[0]]
        return match[0][:place] + SPLIT + match[0][place:]

    def pieces(self, texts: Sequence[str], cuts: Sequence[Sequence[int]]) -> Pieces:
        """See `FastTokenizer.pieces`; markers give no token."""
        found = self._inner.pieces(texts, cuts)
        ids, before = self._without_marks(found.ids)
        return Pieces(ids, [before[place] for place in found.bounds])

    def locate(self, texts: Sequence[str], parts: Sequence[Spans]) -> list[tuple[array[int], Spans]]:
        """See `FastTokenizer.locate`; the characters of `parts` include markers."""
        located = []
        for marked, spans in self._inner.locate(texts, parts):
            ids, before = self._without_marks(marked)
            located.append((ids, tuple((before[start], before[end]) for start, end in spans)))
        return located

    def _without_marks(self, ids: array[int]) -> tuple[array[int], list[int]]:
        """Token ids without those of markers, and for each old position the number of tokens left before it."""
        kept = np.frombuffer(ids, np.int32) != self._mark if len(ids) else np.zeros(0, dtype=bool)
        left = type(ids)("i", np.frombuffer(ids, np.int32)[kept].tobytes()) if len(ids) else ids
        return left, list(accumulate(kept.tolist(), initial=0))


def splitting_tokenizer(tokenizer: PreTrainedTokenizerBase) -> SplittingTokenizer:
    """Copy the fast implementation of a tokenizer, as one that drops the markers in special tokens."""
    if not tokenizer.is_fast:
        raise DataError(
            "split_special_tokens needs a fast tokenizer, and the model has a slow one. Set split_special_tokens: "
            "false, or use a model with tokenizer.json."
        )
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_str(tokenizer.backend_tokenizer.to_str())
    special = {one.content for one in backend.get_added_tokens_decoder().values() if one.special}
    places = {token: _first_end(backend, token) for token in special if len(token) > 1}
    backend.encode_special_tokens = False
    backend.add_special_tokens([AddedToken(SPLIT, normalized=False)])
    return SplittingTokenizer(backend, places)


def _first_end(backend: Tokenizer, token: str) -> int:
    """End of the first token of a special token that is read as text."""
    backend.encode_special_tokens = True
    ends = [end for _, end in backend.encode(token, add_special_tokens=False).offsets]
    return next((end for end in ends if 0 < end < len(token)), 1)
