"""Chinese text, which has no blanks between words."""

from __future__ import annotations

import functools
import re
from importlib.util import find_spec
from typing import Any

HAN = r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Inside of a character class: the unified and compatibility ideographs, the iteration mark and the zero."""
_HAN = re.compile(f"[{HAN}]")
PUNCTUATION = "，。：？！“”；’《》…·、「」（）－～『』"  # noqa: RUF001 - full width
"""Punctuation of Chinese, as the evaluation script of CMRC 2018 (arXiv 1810.07366) removes it."""


def has_han(text: str) -> bool:
    """Whether a text has a Han character, so that metrics split it as Chinese."""
    return _HAN.search(text) is not None


def can_segment() -> bool:
    """Whether jieba is installed, which finds the words of Chinese; if not, a metric says so in its notes."""
    return find_spec("jieba") is not None


def segment(text: str) -> list[str]:
    """Split Chinese into words, by jieba where it is installed, else into characters.

    Metrics of words then count them, as LLaMA-Factory's do; Chinese has no blanks between them. The first call reads
    jieba's dictionary, and leaves only warnings in jieba's log.
    """
    return [str(word) for word in _jieba().lcut(text)] if can_segment() else list(text)


@functools.cache
def _jieba() -> Any:
    """A tokenizer of jieba with its dictionary.

    jieba would read a cache of it from the folder of temporary files, in which others may write.
    """
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer
