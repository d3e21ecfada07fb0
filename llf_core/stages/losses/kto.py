"""KTO: completions that were labelled good or bad, one by one (arXiv 2402.01306, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def kto(
    ratio: Tensor, kl: Tensor | float, good: Tensor, beta: float, weights: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """KTO loss `[B]` of completions labelled good or bad.

    `λ_D (1 - σ(β(r - z)))` of a good completion, `λ_U (1 - σ(β(z - r)))` of a bad one: the paper's λ_y - v(x, y).

    Args:
        ratio: `[B]`, r = log π(y|x) - log π_ref(y|x), summed over the completion's tokens.
        kl: z, a scalar: KL divergence of the policy from the reference, see `kl_estimate`.
        good: `[B]`, bool: whether the completion is labelled good.
        beta: β, `pref_beta`.
        weights: λ_D and λ_U: `kto_chosen_weight` and `kto_rejected_weight`.
    """
    import torch

    lost = beta * (kl - ratio)
    return torch.where(good, weights[0] * lost.sigmoid(), weights[1] * (-lost).sigmoid())


def kl_estimate(ratio_of_mismatched: Tensor) -> Tensor:
    """Estimate KL(π ‖ π_ref) as `z = max(0, mean r)` over mismatched completions, a scalar without a graph.

    Args:
        ratio_of_mismatched: `[B]`, at least one, log π(y'|x) - log π_ref(y'|x) of prompts with completions of
            others; of all ranks, since the mean comes before the maximum.
    """
    return ratio_of_mismatched.detach().mean().clamp(min=0.0)
