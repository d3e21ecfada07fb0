"""Patterns of tokenizers that split a text before every single space between two words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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
