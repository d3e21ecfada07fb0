"""NCA on pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def nca_pair(pairs: Pairs, terms: Terms) -> Tensor:
    """NCA loss of pairs: optimizes absolute rewards, so that the chosen completion does not become less likely too.

    `-log σ(β r_w) - ½ log σ(-β r_w) - ½ log σ(-β r_l)`; `2 ln 2` where policy and reference are equal.

    Args:
        pairs: log-probabilities of policy and reference, `[P]` each; r_w is `Pairs.chosen_ratio`, r_l
            `Pairs.rejected_ratio`.
        terms: `beta`.

    Returns:
        `[P]`.

    Source:
        NCA, arXiv 2402.05369, for two completions and hard labels, as TRL's `nca_pair`.
    """
    from torch.nn.functional import logsigmoid

    chosen, rejected = terms.beta * pairs.chosen_ratio, terms.beta * pairs.rejected_ratio
    return -logsigmoid(chosen) - 0.5 * (logsigmoid(-chosen) + logsigmoid(-rejected))
