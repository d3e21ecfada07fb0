"""Normalization of answers in SQuAD."""

from __future__ import annotations

import re
import string

from llf_core.metrics.han_text import HAN, PUNCTUATION, has_han

ARTICLES = re.compile(r"\b(a|an|the)\b")
ASCII = str.maketrans("", "", string.punctuation)
CHINESE = str.maketrans("", "", PUNCTUATION)
EACH_HAN = re.compile(f"([{HAN}])")


def squad_words(text: str) -> list[str]:
    """Words in lower case, without punctuation and articles, as in SQuAD's `evaluate-v1.1.py` (arXiv 1606.05250).

    Each Han character is a word and Chinese punctuation is removed, as in the script of CMRC 2018 (arXiv
    1810.07366).
    """
    bare = text.lower().translate(ASCII)
    if has_han(bare):
        bare = EACH_HAN.sub(r" \1 ", bare.translate(CHINESE))
    return ARTICLES.sub(" ", bare).split()
