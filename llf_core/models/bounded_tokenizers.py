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
"""Characters that each makes of one, measured over all (https://unicode.org/faq/normalization.html#12).

NFC has the value of NFD. In a row of them only the largest counts, since none enlarges a decomposition.
"""
GROWTH = FORMS | {"BertNormalizer": 3, "ByteLevel": 4, "WordPiece": 2, "BPEDecoder": 2, "CTC": 2}
"""The same for other normalizers, measured too, and for decoders, which may add a blank to each token or character."""


class PanicError(RuntimeError):
    """A panic of a library written in Rust."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Context manager that turns Rust panics, which derive from `BaseException`, into `PanicError`."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise PanicError(first_line(error)) from error


def is_tokenizer_error(error: Exception) -> bool:
    """Whether an exception comes from the tokenizers library, which raises plain `Exception` or panics."""
    return type(error) is Exception or isinstance(error, PanicError)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer that lets texts grow beyond `MAX_GROWTH` or `MAX_ADDED_LENGTH`, or fails on `PROBE_TEXTS`.

    Slow tokenizers, written in Python, are not checked.

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
    """Upper bound of the factor by which a normalizer or decoder lets a text grow, and of the characters it adds.

    In a sequence the factors multiply, and each component makes the text added before it grow too.
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

    `re` computes it; 0 for expressions that Oniguruma, which matches them, may read in another way.
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
    """Number of characters of the longest replacement in SentencePiece's map.

    Format (`Normalizer::DecodePrecompiledCharsMap`): the trie's length as 32 bits little-endian, the trie, and texts
    that end with a zero byte.
    """
    texts = charsmap[4 + int.from_bytes(charsmap[:4], "little") :]
    return max(len(text.decode("utf-8", "replace")) for text in texts.split(b"\0"))
