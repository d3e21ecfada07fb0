"""ORPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def orpo(pairs: Pairs, terms: Terms) -> Tensor:
    """`-p̄_w + β · odds_ratio_loss`: learns the chosen answer, and that it is likelier than the rejected one.

    `p̄ = log π(y|x) / |y|` over the answer's tokens, as in LLaMA-Factory and the paper; the first term of TRL's trainer
    is the mean over all tokens of the micro-batch, those of the prompts among them.

    Args:
        pairs: of the policy; no reference is needed.
        terms: `beta`, the paper's λ.

    Returns:
        `[P]`.

    Source:
        ORPO, arXiv 2403.07691, equation 6.
    """
    return terms.beta * odds_ratio_loss(pairs) - pairs.chosen_mean


def odds_ratio_loss(pairs: Pairs) -> Tensor:
    """`-log σ(log odds(y_w) - log odds(y_l))` with `odds(y) = P / (1 - P)` and `P = exp(p̄)`.

    Odds of an answer that is certain (P = 1) are infinite: `p̄` is taken to be at most -ε, the smallest difference that
    the dtype knows at 1.

    Args:
        pairs: of the policy.

    Returns:
        `[P]`; `ln 2` where both answers are equally likely.

    Source:
        ORPO, arXiv 2403.07691, equations 4 and 7.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(_log_odds(pairs.chosen_mean) - _log_odds(pairs.rejected_mean))


def _log_odds(mean: Tensor) -> Tensor:
    import torch

    mean = mean.clamp(max=-torch.finfo(mean.dtype).eps)
    return mean - torch.log(-torch.expm1(mean))
