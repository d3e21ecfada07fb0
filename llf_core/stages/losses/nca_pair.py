"""NCA on pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def nca_pair(pairs: Pairs, terms: Terms) -> Tensor:
    """NCA loss `[P]` of two completions with hard labels (arXiv 2402.05369; TRL's `nca_pair`).

    `-log σ(β r_w) - ½ log σ(-β r_w) - ½ log σ(-β r_l)`; `2 ln 2` where policy and reference are equal. Absolute
    rewards keep the chosen completion from becoming less likely.
    """
    from torch.nn.functional import logsigmoid

    chosen, rejected = terms.beta * pairs.chosen_ratio, terms.beta * pairs.rejected_ratio
    return -logsigmoid(chosen) - 0.5 * (logsigmoid(-chosen) + logsigmoid(-rejected))
