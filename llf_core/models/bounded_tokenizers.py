"""Limits on the `tokenizers` library with untrusted files: panics become exceptions, and text growth is bounded.

The library is written in Rust. Its panics are no subclass of `Exception`, and its computations cannot be interrupted,
so the growth that a `tokenizer.json` allows is computed before any text is tokenized.
"""

from __future__ import annotations

import json
import re
import warnings
from base64 import b64decode
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError, first_line
from llf_core.models.model_folder import REDOWNLOAD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerBase

PANIC = "PanicException"
MAX_GROWTH = 324
"""Maximum growth factor of a normalizer or decoder: ALBERT's, which is 18 of NFKD times 18 of SentencePiece's map."""
MAX_ADDED_LENGTH = 1000
"""Characters that a normalizer or decoder may add to a text."""
PROBE_TEXTS = ("a", "Hello, world 1", "\u00e4 \u4f60\u597d \U0001f642")
"""Texts that every tokenizer must accept: ASCII, a script without spaces, and characters beyond 16 bits."""
FORMS = {"NFC": 4, "NFD": 4, "NFKC": 18, "NFKD": 18, "Lowercase": 2, "StripAccents": 1}
"""Characters that these make of one. A row of them makes as many as the largest, since none enlarges a decomposition.

Measured over all characters; https://unicode.org/faq/normalization.html#12 has the same. NFC counts as NFD, which some
of its characters become before.
"""
GROWTH = FORMS | {"BertNormalizer": 3, "ByteLevel": 4, "WordPiece": 2, "BPEDecoder": 2, "CTC": 2}
"""The same for other normalizers, measured too, and for decoders, which may add a blank to each token or character."""


class PanicError(RuntimeError):
    """A panic of a library written in Rust."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Context manager that turns Rust panics into `PanicError`, which is an `Exception`.

    A panic is a `BaseException`, which would pass every handler of errors and end the process.

    Raises:
        PanicError: the library has panicked.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise PanicError(first_line(error)) from error


def is_tokenizer_error(error: Exception) -> bool:
    """Whether an exception comes from the tokenizers library, which raises plain `Exception`, or panics.

    Handlers need it to tell a damaged tokenizer from a programming error, since `except Exception` would catch both.

    Args:
        error: an exception from a call of the library, inside `panics_as_errors`.
    """
    return type(error) is Exception or isinstance(error, PanicError)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer that lets texts grow beyond `MAX_GROWTH` or `MAX_ADDED_LENGTH`, or fails on `PROBE_TEXTS`.

    Either would end or exhaust the process in the middle of a preparation, where it cannot be interrupted.

    Args:
        tokenizer: as loaded; slow tokenizers, written in Python, are not checked.

    Raises:
        ModelError: names the part of the tokenizer and the growth factor or the failure.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    for part in ("normalizer", "decoder"):
        state = getattr(backend, part)
        times, added = (1.0, 0) if state is None else _growth_bound(json.loads(state.__getstate__()))
        if times > MAX_GROWTH or added > MAX_ADDED_LENGTH:
            raise ModelError(
                f"The tokenizer of {name} was rejected: its {part} makes a text up to {times:,.0f} times as long and "
                f"adds {added:,} characters. Expected at most {MAX_GROWTH} times and {MAX_ADDED_LENGTH:,} characters. "
                f"{REDOWNLOAD}"
            )
    try:
        with panics_as_errors():
            for text in PROBE_TEXTS:
                backend.encode(text, add_special_tokens=False)
    except Exception as error:
        if not is_tokenizer_error(error):
            raise
        raise ModelError(
            f"The tokenizer of {name} cannot encode every text: {first_line(error)} Expected one that has a token for "
            f"unknown text. {REDOWNLOAD}"
        ) from error


def _growth_bound(part: dict[str, Any]) -> tuple[float, int]:
    """Upper bound of the growth of a text by a normalizer or decoder, computed since its work cannot be interrupted.

    In a sequence the factors multiply, and each component makes the text added before it grow too.

    Args:
        part: the component's entry in `tokenizer.json`.
    """
    kind = part.get("type")
    if kind == "Sequence":
        times, added = 1.0, 0
        for forms, row in groupby(_flat(part), lambda one: one.get("type") in FORMS):
            bounds = [_growth_bound(one) for one in row]
            for more, longer in [max(bounds)] if forms else bounds:
                times, added = times * more, int(added * more) + longer
        return times, added
    if kind == "Prepend":
        return 1.0, len(part.get("prepend") or "")
    if kind == "Replace":
        content, shortest = len(part.get("content") or ""), _shortest_match(part.get("pattern") or {})
        # A match of nothing inserts the content before each character and at the end.
        return (max(1.0, content / shortest), 0) if shortest else (1.0 + content, content)
    if kind == "Precompiled":
        return max(1.0, _longest_entry(b64decode(part.get("precompiled_charsmap") or ""))), 0
    return float(GROWTH.get(str(kind), 1)), 0


def _flat(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The components of a sequence and of those in it."""
    for inner in part.get("normalizers") or part.get("decoders") or ():
        yield from _flat(inner) if inner.get("type") == "Sequence" else (inner,)


def _shortest_match(pattern: dict[str, str]) -> int:
    """Lower bound of the number of characters that a pattern matches.

    `re` computes that of a regular expression. Oniguruma, which matches it, reads nested classes and `{1}?` in another
    way: such an expression, and one that `re` does not know, may match nothing.
    """
    if "Regex" not in pattern:
        return len(pattern.get("String") or "")
    text = pattern["Regex"]
    if text.count("[") > 1 or "}?" in text:
        return 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return int(re._parser.parse(text).getwidth()[0])  # type: ignore[attr-defined]  # noqa: SLF001 - no other way
    except (re.error, RecursionError, OverflowError, Warning):
        return 0


def _longest_entry(charsmap: bytes) -> int:
    """Number of characters of the longest replacement in SentencePiece's map: the trie's length, the trie, the texts.

    Source:
        `Normalizer::DecodePrecompiledCharsMap` of https://github.com/google/sentencepiece: a 32-bit little-endian
        length, the trie, and texts that end with a zero byte.
    """
    texts = charsmap[4 + int.from_bytes(charsmap[:4], "little") :]
    return max(len(text.decode("utf-8", "replace")) for text in texts.split(b"\0"))
