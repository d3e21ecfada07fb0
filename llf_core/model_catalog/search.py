from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from llf_core.model_catalog.models import CatalogModel, known_models

if TYPE_CHECKING:
    from collections.abc import Iterable

_PART = r"(?:(?<![a-z0-9.])|(?<=[a-z]\.)|(?<=[a-z]{2})(?=[0-9]))"
"""Where a part of a name begins: after a sign, or where digits follow two letters. Not inside 72b, 1.7b or a3b."""


def search_models(words: Iterable[str]) -> tuple[CatalogModel, ...]:
    """Search the known models by words, all of which must match.

    A word matches where a part of a name begins, in upper or lower case: of the hub id, of LLaMA-Factory's names, of
    the family or of the ModelScope id. So `qwen 7b` finds `Qwen/Qwen2.5-7B-Instruct`, and neither 72B nor 1.7B.
    """
    patterns = [re.compile(_PART + re.escape(_plain(word))) for text in words for word in text.split()]
    return tuple(
        model
        for model, text in zip(known_models(), _texts(), strict=True)
        if all(pattern.search(text) for pattern in patterns)
    )


def unmatched_words(words: Iterable[str]) -> tuple[str, ...]:
    """Words that match no model at all."""
    return tuple(word for text in words for word in text.split() if not search_models([word]))


@cache
def _texts() -> tuple[str, ...]:
    return tuple(_plain(" ".join((one.id, *one.names, one.family, one.modelscope))) for one in known_models())


def _plain(text: str) -> str:
    """Text in lower case, with `1_8B` written `1.8b` and other underscores as hyphens."""
    return re.sub(r"(?<=[0-9])_(?=[0-9])", ".", text.lower()).replace("_", "-")
