"""SimPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.stages.losses.bradley_terry import bradley_terry

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def simpo(pairs: Pairs, terms: Terms) -> Tensor:
    """SimPO loss `[P]`: the mean log-probability is the reward, with a target margin γ (arXiv 2405.14734, eq. 6).

    `-(1 - ε) log σ(m) - ε log σ(-m)` with `m = β (p̄_w - p̄_l) - γ` and `p̄ = log π(y|x) / |y|`. TRL and
    LLaMA-Factory write γ/β inside the brackets: their `simpo_gamma` is the γ of the paper, as here. ε is TRL's.
    """
    margin = terms.beta * (pairs.chosen_mean - pairs.rejected_mean) - terms.gamma
    return bradley_terry(margin, terms.label_smoothing)
