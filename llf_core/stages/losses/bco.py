"""BCO: a classifier of chosen and rejected answers, and the shift of its rewards."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def bco(pairs: Pairs, terms: Terms, delta: Tensor | float) -> Tensor:
    """`-log σ(β r_w - δ) - log σ(δ - β r_l)`; `2 ln 2` where policy and reference are equal and δ is 0.

    Args:
        pairs: of policy and reference.
        terms: `beta`.
        delta: δ, the running mean of the rewards `β r` of all answers; a scalar, through which no gradient flows.

    Returns:
        `[P]`.

    Source:
        BCO, arXiv 2404.04656; mixed with DPO as `(L + w · BCO) / (1 + w)`, LLaMA-Factory's `pref_bco_weight` w.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(terms.beta * pairs.chosen_ratio - delta) - logsigmoid(delta - terms.beta * pairs.rejected_ratio)


@dataclass
class RunningMean:
    """The mean of all values so far, each counting alike.

    LLaMA-Factory takes in the mean of each micro-batch as one value, before it uses δ for that micro-batch, and in
    evaluation too. Sums and counts of answers give the same δ where all micro-batches are of one size.

    Attributes:
        total: sum of the values.
        count: how many there were.
    """

    total: float = 0.0
    count: float = 0.0

    @property
    def mean(self) -> float:
        """0 before there is any value."""
        return self.total / self.count if self.count else 0.0

    def add(self, total: Tensor | float, count: Tensor | float) -> None:
        """Add values to the mean.

        Args:
            total: sum of the values over all ranks, a scalar.
            count: number of the values over all ranks, a scalar.
        """
        self.total += float(total)
        self.count += float(count)

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps, as JSON knows it."""
        return asdict(self)

    def load(self, state: Mapping[str, float]) -> None:
        """Goes on from a `state()`."""
        self.total, self.count = float(state["total"]), float(state["count"])
