"""LD-DPO: tokens beyond the length of the pair's shorter completion count less."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def desensitized_sums(log_probs: Tensor, answers: Tensor, pairs: int, alpha: float) -> Tensor:
    """Sum log-probabilities `[2P]` with less weight on the tokens beyond the length of the pair's shorter completion.

    `log π̂(y|x) = Σ_{i ≤ l} log π(y_i|x, y_<i) + α Σ_{i > l} log π(y_i|x, y_<i)` with `l = min(|y_w|, |y_l|)`.

    Args:
        log_probs: `[N]`, of the completions' tokens.
        answers: `[N]`, int64: completion of each token, 2i for the chosen one of pair i and 2i + 1 for its rejected
            one. Tokens of one completion are in order; completions in any.
        alpha: α, `ld_alpha`, 0 to 1: 1 is the plain sum, 0 leaves out tokens beyond l.

    Source:
        LD-DPO, arXiv 2409.06411. LLaMA-Factory weights the policy's tokens alone, as here, so the loss of equal
            models is not `ln 2`; TRL 1 weights those of both models.
    """
    import torch

    ones = torch.ones_like(answers)
    counts = answers.new_zeros(2 * pairs).index_add_(0, answers, ones)
    order = answers.argsort(stable=True)
    starts = counts.cumsum(0) - counts
    places = torch.empty_like(answers)
    places[order] = torch.arange(len(answers), device=answers.device) - starts[answers[order]]
    shared = counts.view(pairs, 2).amin(1).repeat_interleave(2)
    weights = torch.full_like(log_probs, alpha, requires_grad=False).masked_fill_(places < shared[answers], 1.0)
    return log_probs.new_zeros(2 * pairs).index_add(0, answers, log_probs * weights)
