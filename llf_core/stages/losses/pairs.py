"""Inputs of the losses of the preference family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Pairs:
    """Log-probabilities of P pairs: two completions y of one prompt x, of which the chosen one is preferred.

    Attributes:
        chosen: `[P]`, float32 or float64: the policy's `log π(y|x)` of the chosen completions, summed over their
            tokens.
        rejected: `[P]`, the same of the rejected completions.
        reference_chosen: `[P]`, `log π_ref(y|x)` of the chosen completions; None without a reference model.
        reference_rejected: `[P]`, the same of the rejected completions; None without a reference.
        chosen_tokens: `[P]`, int64: tokens of the chosen completions.
        rejected_tokens: `[P]`, int64: tokens of the rejected completions.
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor | None
    reference_rejected: Tensor | None
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @property
    def chosen_ratio(self) -> Tensor:
        """Log-ratio of the chosen completions, `r_w = log π(y_w|x) - log π_ref(y_w|x)`, `[P]`: their reward over β.

        Source:
            Implicit reward `β r`: DPO, arXiv 2305.18290, section 4.
        """
        return self.chosen - _required(self.reference_chosen)

    @property
    def rejected_ratio(self) -> Tensor:
        """Log-ratio of the rejected completions, `r_l = log π(y_l|x) - log π_ref(y_l|x)`, `[P]`: their reward over β.

        Source:
            Implicit reward `β r`: DPO, arXiv 2305.18290, section 4.
        """
        return self.rejected - _required(self.reference_rejected)

    @property
    def margin(self) -> Tensor:
        """Difference of the log-ratios, `h = r_w - r_l`, `[P]`: the margin of the implicit rewards over β.

        Source:
            DPO, arXiv 2305.18290, equation 7: the argument of σ divided by β.
        """
        return self.chosen_ratio - self.rejected_ratio

    @property
    def policy_margin(self) -> Tensor:
        """Difference of the policy's log-probabilities, `log π(y_w|x) - log π(y_l|x)`, `[P]`, for AOT."""
        return self.chosen - self.rejected

    @property
    def reference_margin(self) -> Tensor:
        """Difference of the reference's log-probabilities, `log π_ref(y_w|x) - log π_ref(y_l|x)`, `[P]`, for AOT."""
        return _required(self.reference_chosen) - _required(self.reference_rejected)

    @property
    def chosen_mean(self) -> Tensor:
        """Mean log-probability per token of the chosen completions, `log π(y_w|x) / |y_w|`, `[P]`; 0 without tokens.

        For losses without a reference, which would otherwise prefer short completions (SimPO, ORPO).
        """
        return self.chosen / self.chosen_tokens.clamp(min=1)

    @property
    def rejected_mean(self) -> Tensor:
        """Mean log-probability per token of the rejected completions, `log π(y_l|x) / |y_l|`, `[P]`; 0 without tokens.

        For losses without a reference, which would otherwise prefer short completions (SimPO, ORPO).
        """
        return self.rejected / self.rejected_tokens.clamp(min=1)


@dataclass(frozen=True)
class Terms:
    """Constants of the losses; each loss reads its own.

    Attributes:
        beta: β, `pref_beta`: scale of the implicit rewards. Larger values keep the policy closer to the reference.
        label_smoothing: ε, `dpo_label_smoothing`: share of the pairs that are assumed to be labelled the wrong way
            round.
        gamma: γ, `simpo_gamma`: target margin of SimPO's rewards.
        discopop_tau: τ, `discopop_tau`: width of DiscoPOP's transition between its two losses.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    gamma: float = 0.5
    discopop_tau: float = 0.05


def _required(reference: Tensor | None) -> Tensor:
    if reference is None:
        raise ValueError(
            "This loss compares the policy with a reference, and there are no log-probabilities of one. Give them, or "
            "take a loss that needs none (orpo, simpo)."
        )
    return reference
