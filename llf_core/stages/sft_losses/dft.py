"""DFT: each token is weighted by its probability, which takes the factor 1/p out of the gradient of the likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dft_weights(log_probs: Tensor, costs: Tensor) -> Tensor:  # noqa: ARG001 - as all weights of tokens
    """Weight `p` of each token, so that its loss is `-sg(p) log p`, where `sg` stops the gradient.

    The gradient of `-log p` has the factor `1/p`, by which unlikely tokens dominate it; the weight cancels it.

    Args:
        log_probs: log-probabilities of the vocabulary, `[rows, V]`; not needed.
        costs: `-log p` of the target of each row, `[rows]`.

    Returns:
        `[rows]`, from 0 to 1.

    Source:
        Dynamic Fine-Tuning, arXiv 2508.05629, equation 9; `use_dft_loss` of LLaMA-Factory.
    """
    return costs.neg().exp_()
