"""DFT: each token is weighted by its probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dft_weights(log_probs: Tensor, costs: Tensor) -> Tensor:  # noqa: ARG001 - as all weights of tokens
    """Weight `p` of each token, `[rows]`, which cancels the factor `1/p` of the gradient of `-log p`.

    Dynamic Fine-Tuning, arXiv 2508.05629, equation 9; `use_dft_loss` of LLaMA-Factory.

    Args:
        log_probs: log-probabilities of the vocabulary, `[rows, V]`; not used.
        costs: `-log p` of the target of each row, `[rows]`.
    """
    return costs.neg().exp_()
