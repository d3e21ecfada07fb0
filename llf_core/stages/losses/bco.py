"""BCO: a binary classifier of chosen and rejected completions, and the shift of its rewards."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def bco(pairs: Pairs, terms: Terms, delta: Tensor | float) -> Tensor:
    """BCO loss `[P]` (arXiv 2404.04656): the implicit reward is the logit of a classifier of chosen and rejected ones.

    `-log σ(β r_w - δ) - log σ(δ - β r_l)`; `2 ln 2` where policy and reference are equal and δ is 0.

    Args:
        delta: δ, the running mean of the rewards `β r` of all completions; a scalar without a gradient.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(terms.beta * pairs.chosen_ratio - delta) - logsigmoid(delta - terms.beta * pairs.rejected_ratio)


@dataclass
class RunningMean:
    """Mean of all values so far, with equal weights: the reward shift δ of BCO.

    LLaMA-Factory adds the mean of each micro-batch as one value, before it uses δ for that micro-batch, and in
    evaluation too. Sums and counts of completions give the same δ if all micro-batches have one size.
    """

    total: float = 0.0
    count: float = 0.0

    @property
    def mean(self) -> float:
        """Mean of the values; 0 without any."""
        return self.total / self.count if self.count else 0.0

    def add(self, total: Tensor | float, count: Tensor | float) -> None:
        """Add values over all ranks to the mean, as sum and count, scalars."""
        self.total += float(total)
        self.count += float(count)

    def state(self) -> dict[str, float]:
        """`total` and `count` as JSON."""
        return asdict(self)

    def load(self, state: Mapping[str, float]) -> None:
        """Restore the result of `state`; ValueError if a value exceeds float64."""
        try:
            self.total, self.count = float(state["total"]), float(state["count"])
        except OverflowError:
            raise ValueError("the sum or the count of a running mean is an integer beyond float64") from None
