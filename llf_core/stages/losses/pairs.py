"""What the losses of the preference family are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Pairs:
    """Log-probabilities of P pairs: two answers y to one prompt x, of which the chosen one is preferred.

    Attributes:
        chosen: `[P]`, float32 or float64: the policy's `log π(y|x)` of the chosen answers, summed over their tokens.
        rejected: `[P]`, the same of the rejected answers.
        reference_chosen: `[P]`, `log π_ref(y|x)` of the chosen answers; None where there is no reference model.
        reference_rejected: `[P]`, the same of the rejected answers.
        chosen_tokens: `[P]`, int64: tokens of the chosen answers.
        rejected_tokens: `[P]`, int64: tokens of the rejected answers.
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor | None
    reference_rejected: Tensor | None
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @property
    def chosen_ratio(self) -> Tensor:
        """`[P]`, `r_w = log π(y_w|x) - log π_ref(y_w|x)`.

        Raises:
            ValueError: where there is no reference.
        """
        return self.chosen - _required(self.reference_chosen)

    @property
    def rejected_ratio(self) -> Tensor:
        """`[P]`, `r_l = log π(y_l|x) - log π_ref(y_l|x)`.

        Raises:
            ValueError: where there is no reference.
        """
        return self.rejected - _required(self.reference_rejected)

    @property
    def margin(self) -> Tensor:
        """`[P]`, `h = r_w - r_l`.

        Raises:
            ValueError: where there is no reference.
        """
        return self.chosen_ratio - self.rejected_ratio

    @property
    def policy_margin(self) -> Tensor:
        """`[P]`, `log π(y_w|x) - log π(y_l|x)`."""
        return self.chosen - self.rejected

    @property
    def reference_margin(self) -> Tensor:
        """`[P]`, `log π_ref(y_w|x) - log π_ref(y_l|x)`.

        Raises:
            ValueError: where there is no reference.
        """
        return _required(self.reference_chosen) - _required(self.reference_rejected)

    @property
    def chosen_mean(self) -> Tensor:
        """`[P]`, `log π(y_w|x) / |y_w|`; 0 for an answer without tokens."""
        return self.chosen / self.chosen_tokens.clamp(min=1)

    @property
    def rejected_mean(self) -> Tensor:
        """`[P]`, `log π(y_l|x) / |y_l|`; 0 for an answer without tokens."""
        return self.rejected / self.rejected_tokens.clamp(min=1)


@dataclass(frozen=True)
class Terms:
    """The constants of the losses; each loss reads its own.

    Attributes:
        beta: scale of the implicit rewards, `pref_beta`; the larger, the closer the policy stays to the reference.
        label_smoothing: share of the pairs that are taken to be labelled the wrong way round, `dpo_label_smoothing`.
        gamma: by how much the mean rewards should differ, `simpo_gamma`.
        discopop_tau: over what width DiscoPOP goes from one of its two losses to the other.
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
