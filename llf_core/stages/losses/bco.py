"""BCO: a binary classifier of chosen and rejected completions, and the shift of its rewards."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def bco(pairs: Pairs, terms: Terms, delta: Tensor | float) -> Tensor:
    """BCO loss: the implicit reward as the logit of a classifier that tells chosen from rejected completions.

    `-log σ(β r_w - δ) - log σ(δ - β r_l)`; `2 ln 2` where policy and reference are equal and δ is 0. The shift δ keeps
    the logits centred when all rewards drift in one direction.

    Args:
        pairs: log-probabilities of policy and reference, `[P]` each; r_w is `Pairs.chosen_ratio`, r_l
            `Pairs.rejected_ratio`.
        terms: `beta`.
        delta: δ, the running mean of the rewards `β r` of all completions; a scalar without a gradient.

    Returns:
        `[P]`.

    Source:
        BCO, arXiv 2404.04656; mixed with DPO as `(L + w · BCO) / (1 + w)`, LLaMA-Factory's `pref_bco_weight` w.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(terms.beta * pairs.chosen_ratio - delta) - logsigmoid(delta - terms.beta * pairs.rejected_ratio)


@dataclass
class RunningMean:
    """Mean of all values so far, with equal weights: the reward shift δ of BCO.

    LLaMA-Factory adds the mean of each micro-batch as one value, before it uses δ for that micro-batch, and in
    evaluation too. Sums and counts of completions give the same δ where all micro-batches have one size.
    """

    total: float = 0.0
    count: float = 0.0

    @property
    def mean(self) -> float:
        """Mean of the values; 0 without any, as BCO starts."""
        return self.total / self.count if self.count else 0.0

    def add(self, total: Tensor | float, count: Tensor | float) -> None:
        """Add values to the mean, as sum and count: micro-batches of different sizes then count by completions.

        Args:
            total: sum of the values over all ranks, a scalar.
            count: number of the values over all ranks, a scalar.
        """
        self.total += float(total)
        self.count += float(count)

    def state(self) -> dict[str, float]:
        """`total` and `count` as JSON, for a checkpoint or to roll a step back."""
        return asdict(self)

    def load(self, state: Mapping[str, float]) -> None:
        """Continue from a `state`.

        A resumed run, or a step that is computed again, then has the same shift.

        Args:
            state: `total` and `count`.

        Raises:
            ValueError: one of them is no number of float64.
        """
        try:
            self.total, self.count = float(state["total"]), float(state["count"])
        except OverflowError:
            raise ValueError("the sum or the count of a running mean is an integer beyond float64") from None
