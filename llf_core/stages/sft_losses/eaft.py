"""EAFT: each token is weighted by the model's uncertainty, so that training does not overwrite what it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

LIKELIEST = 20
"""Number of likeliest tokens that the entropy is computed over, with renormalized probabilities."""
MAX_ENTROPY = 3.0
"""Entropy of a uniform distribution over 20 tokens in nats, `ln 20 = 2.996`, rounded as in the authors' code."""


def eaft_weights(log_probs: Tensor, costs: Tensor, alpha: float) -> Tensor:  # noqa: ARG001 - as all weights of tokens
    """Weight `(H / 3)^α` of each token, `[rows]`, with the entropy `H` of the 20 likeliest tokens at its position.

    Entropy-Adaptive Fine-Tuning, arXiv 2601.02151; `use_eaft_loss` of LLaMA-Factory.

    Args:
        log_probs: log-probabilities of the vocabulary, `[rows, V]`.
        alpha: α, at least 0. 0 gives every token the weight 1.
    """
    likeliest = log_probs.topk(min(LIKELIEST, log_probs.shape[-1]), dim=-1).values.log_softmax(-1)
    finite = likeliest.clamp(min=torch.finfo(likeliest.dtype).min)  # p log p is 0 where p is 0
    entropy = -(likeliest.exp() * finite).sum(-1)
    return (entropy / MAX_ENTROPY) ** alpha
