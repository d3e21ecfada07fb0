"""DPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.stages.losses.bradley_terry import bradley_terry

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def sigmoid(pairs: Pairs, terms: Terms) -> Tensor:
    """DPO loss `[P]`: negative log-likelihood of the preferences under the implicit rewards (arXiv 2305.18290, eq. 7).

    `-(1 - ε) log σ(βh) - ε log σ(-βh)`; `ln 2` where policy and reference are equal. ε as in conservative DPO (E.
    Mitchell, A note on DPO with noisy preferences, 2023) and LLaMA-Factory; TRL's `sigmoid` no longer has it.
    """
    return bradley_terry(terms.beta * pairs.margin, terms.label_smoothing)
