"""Chinese text, which has no spaces between words."""

from __future__ import annotations

import functools
import re
from importlib.util import find_spec
from typing import Any

HAN = r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Content of a character class: unified and compatibility ideographs, the iteration mark and the zero."""
_HAN = re.compile(f"[{HAN}]")
PUNCTUATION = "，。：？！“”；’《》…·、「」（）－～『』"  # noqa: RUF001 - full width
"""Chinese punctuation that the evaluation script of CMRC 2018 (arXiv 1810.07366) removes."""


def has_han(text: str) -> bool:
    """Whether a text has a Han character."""
    return _HAN.search(text) is not None


def can_segment() -> bool:
    """Whether jieba, which splits Chinese into words, is installed."""
    return find_spec("jieba") is not None


def segment(text: str) -> list[str]:
    """Split Chinese into words by jieba (the first call reads its dictionary) if installed, else into characters."""
    return [str(word) for word in _jieba().lcut(text)] if can_segment() else list(text)


@functools.cache
def _jieba() -> Any:
    """A tokenizer of jieba that reads no cache from the folder of temporary files, where others may write."""
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer
