"""Measures of the likelihood of the expected answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from llf_core.metrics.measure import Measure, ratio

if TYPE_CHECKING:
    from llf_core.metrics.measure import Numbers


def perplexity(sums: Numbers) -> Numbers:
    """Perplexity `[…]` from negative log-likelihood in nats and number of tokens, `[…, 2]`.

    Infinite for a loss above 709.78 nats, NaN without tokens.
    """
    with np.errstate(over="ignore"):
        return np.exp(ratio(sums))


def bits_per_byte(sums: Numbers) -> Numbers:
    """Bits per byte of UTF-8 `[…]`, from negative log-likelihood in nats and number of bytes, `[…, 2]`.

    Comparable between models with different tokenizers (The Pile, arXiv 2101.00027).
    """
    return ratio(sums) / math.log(2)


LOSS = Measure("loss", "Loss", "nats", higher_is_better=False)
PERPLEXITY = Measure("perplexity", "Perplexity", higher_is_better=False, total=perplexity)
"""Statistics: negative log-likelihood in nats, tokens."""
BITS_PER_BYTE = Measure("bits_per_byte", "Bits per byte", higher_is_better=False, total=bits_per_byte)
"""Statistics: negative log-likelihood in nats, bytes."""
TOKEN_ACCURACY = Measure("token_accuracy", "Token accuracy", "%")
"""Statistics: tokens that have the highest probability, tokens."""
