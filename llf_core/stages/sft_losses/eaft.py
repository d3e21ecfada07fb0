"""EAFT: each token is weighted by how uncertain the model is, so that it keeps what it is confident of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

LIKELIEST = 20
"""Number of tokens that the entropy is computed over: the likeliest ones, whose probabilities are made to sum to 1."""
MAX_ENTROPY = 3.0
"""Entropy of a uniform distribution over 20 tokens in nats, `ln 20 = 2.996`, rounded as in the authors' code."""


def eaft_weights(log_probs: Tensor, costs: Tensor, alpha: float) -> Tensor:  # noqa: ARG001 - as all weights of tokens
    """Weight `(H / 3)^α` of each token, with the entropy `H` of the 20 likeliest tokens at its position.

    Tokens that a confident model contradicts get little weight, so that training does not overwrite what it knows.

    Args:
        log_probs: log-probabilities of the vocabulary, `[rows, V]`.
        costs: `-log p` of the target of each row, `[rows]`; not needed.
        alpha: α, at least 0. 0 gives every token the weight 1.

    Returns:
        `[rows]`, from 0 to `(ln 20 / 3)^α`.

    Source:
        Entropy-Adaptive Fine-Tuning, arXiv 2601.02151; `use_eaft_loss` of LLaMA-Factory.
    """
    likeliest = log_probs.topk(min(LIKELIEST, log_probs.shape[-1]), dim=-1).values.log_softmax(-1)
    finite = likeliest.clamp(min=torch.finfo(likeliest.dtype).min)  # p log p is 0 where p is 0
    entropy = -(likeliest.exp() * finite).sum(-1)
    return (entropy / MAX_ENTROPY) ** alpha
