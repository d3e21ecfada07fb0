"""SimPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.stages.losses.bradley_terry import bradley_terry

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def simpo(pairs: Pairs, terms: Terms) -> Tensor:
    """SimPO loss: the mean log-probability is the reward, with a target margin γ, so that no reference is needed.

    `-(1 - ε) log σ(m) - ε log σ(-m)` with `m = β (p̄_w - p̄_l) - γ` and `p̄ = log π(y|x) / |y|`. TRL and LLaMA-Factory
    write γ/β inside the brackets: their `simpo_gamma` is the γ of the paper, as here. The paper and LLaMA-Factory have
    no ε, TRL has.

    Args:
        pairs: log-probabilities of the policy and lengths, `[P]` each.
        terms: `beta`, `gamma`, `label_smoothing` ε.

    Returns:
        `[P]`.

    Source:
        SimPO, arXiv 2405.14734, equation 6.
    """
    margin = terms.beta * (pairs.chosen_mean - pairs.rejected_mean) - terms.gamma
    return bradley_terry(margin, terms.label_smoothing)
