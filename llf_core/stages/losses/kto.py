"""KTO: answers that were judged good or bad, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def kto(
    ratio: Tensor, kl: Tensor | float, good: Tensor, beta: float, weights: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """`λ_D (1 - σ(β(r - z)))` of a good answer, `λ_U (1 - σ(β(z - r)))` of a bad one; half of λ where r = z.

    The paper's λ_y - v(x, y).

    Args:
        ratio: `[B]`, r = log π(y|x) - log π_ref(y|x), summed over the answer's tokens.
        kl: z, a scalar: how far the policy has come from the reference, see `kl_estimate`.
        good: `[B]`, bool: whether the answer was judged good.
        beta: β, `pref_beta`.
        weights: λ_D and λ_U: `kto_chosen_weight` and `kto_rejected_weight`.

    Returns:
        `[B]`.

    Source:
        KTO, arXiv 2402.01306, section 4; as in TRL and LLaMA-Factory.
    """
    import torch

    lost = beta * (kl - ratio)
    return torch.where(good, weights[0] * lost.sigmoid(), weights[1] * (-lost).sigmoid())


def kl_estimate(ratio_of_mismatched: Tensor) -> Tensor:
    """`z = max(0, mean r)` over answers that belong to other prompts: an estimate of KL(π ‖ π_ref).

    Args:
        ratio_of_mismatched: `[B]`, log π(y'|x) - log π_ref(y'|x) of prompts with the answers of others; of all ranks,
            since the mean comes before the maximum.

    Returns:
        A scalar without a graph: no gradient flows through z.

    Source:
        KTO, arXiv 2402.01306, section 4.
    """
    return ratio_of_mismatched.detach().mean().clamp(min=0.0)
