"""ORPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def orpo(pairs: Pairs, terms: Terms) -> Tensor:
    """ORPO loss `[P]`: fine-tunes on the chosen completion and raises its odds over the rejected one.

    `-p̄_w + β · odds_ratio_loss` (arXiv 2403.07691, equation 6; β is its λ) with `p̄ = log π(y|x) / |y|` over the
    completion's tokens, as in LLaMA-Factory; the first term of TRL's trainer is the mean over all tokens of the
    micro-batch, prompts included.
    """
    return terms.beta * odds_ratio_loss(pairs) - pairs.chosen_mean


def odds_ratio_loss(pairs: Pairs) -> Tensor:
    """Odds ratio loss `[P]`: `-log σ(log odds(y_w) - log odds(y_l))` with `odds(y) = P / (1 - P)`, `P = exp(p̄)`.

    arXiv 2403.07691, equations 4 and 7. `p̄` is at most -ε, the smallest difference from 1 in its dtype.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(_log_odds(pairs.chosen_mean) - _log_odds(pairs.rejected_mean))


def _log_odds(mean: Tensor) -> Tensor:
    import torch

    mean = mean.clamp(max=-torch.finfo(mean.dtype).eps)
    return mean - torch.log(-torch.expm1(mean))
