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
        chosen, rejected: `[P]`, float32 or float64: the policy's `log π(y|x)`, summed over the completion's tokens.
        reference_chosen, reference_rejected: `[P]`, `log π_ref(y|x)`; None without a reference model.
        chosen_tokens, rejected_tokens: `[P]`, int64.
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor | None
    reference_rejected: Tensor | None
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @property
    def chosen_ratio(self) -> Tensor:
        """`r_w = log π(y_w|x) - log π_ref(y_w|x)`, `[P]`: implicit reward over β (DPO, arXiv 2305.18290, section 4)."""
        return self.chosen - _required(self.reference_chosen)

    @property
    def rejected_ratio(self) -> Tensor:
        """`r_l = log π(y_l|x) - log π_ref(y_l|x)`, `[P]`: implicit reward over β (DPO, arXiv 2305.18290, section 4)."""
        return self.rejected - _required(self.reference_rejected)

    @property
    def margin(self) -> Tensor:
        """`h = r_w - r_l`, `[P]`: the argument of σ over β in DPO, arXiv 2305.18290, equation 7."""
        return self.chosen_ratio - self.rejected_ratio

    @property
    def policy_margin(self) -> Tensor:
        """`log π(y_w|x) - log π(y_l|x)`, `[P]`, for AOT."""
        return self.chosen - self.rejected

    @property
    def reference_margin(self) -> Tensor:
        """`log π_ref(y_w|x) - log π_ref(y_l|x)`, `[P]`, for AOT."""
        return _required(self.reference_chosen) - _required(self.reference_rejected)

    @property
    def chosen_mean(self) -> Tensor:
        """Mean log-probability per token, `log π(y_w|x) / |y_w|`, `[P]`; 0 without tokens."""
        return self.chosen / self.chosen_tokens.clamp(min=1)

    @property
    def rejected_mean(self) -> Tensor:
        """Mean log-probability per token, `log π(y_l|x) / |y_l|`, `[P]`; 0 without tokens."""
        return self.rejected / self.rejected_tokens.clamp(min=1)


@dataclass(frozen=True)
class Terms:
    """Constants of the losses; each loss reads its own.

    Attributes:
        beta: β, `pref_beta`: scale of the implicit rewards. Larger values keep the policy closer to the reference.
        label_smoothing: ε, `dpo_label_smoothing`: share of the pairs that are assumed to have swapped labels.
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
