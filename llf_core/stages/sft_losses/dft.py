"""DFT: each token is weighted by its probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dft_weights(log_probs: Tensor, costs: Tensor) -> Tensor:  # noqa: ARG001 - as all weights of tokens
    """Weight `p` of each token, `[rows]`, from `costs` `-log p`; it cancels the factor `1/p` of the gradient.

    Dynamic Fine-Tuning, arXiv 2508.05629, equation 9; `use_dft_loss` of LLaMA-Factory.
    """
    return costs.neg().exp_()
