"""Losses of the preference family: pure functions of pairs of completions, and KTO's of single ones.

In their formulas, `r_w` and `r_l` are `Pairs.chosen_ratio` and `Pairs.rejected_ratio`, `h` is `Pairs.margin`; β, ε,
γ and τ are those of `Terms`. `LOSSES` names those of `pref_loss`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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


def bradley_terry(margin: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Negative log-likelihood `[P]` under the Bradley-Terry model: `-(1 - ε) log σ(m) - ε log σ(-m)`.

    Bradley and Terry, Biometrika 1952; ε as in E. Mitchell, A note on DPO with noisy preferences, 2023.

    Args:
        margin: `[P]`, m: reward of the chosen completion minus that of the rejected one.
        label_smoothing: ε, share of the labels that are wrong; 0 to 0.5.
    """
    cost = -_log_sigmoid(margin)
    # -log σ(-m) = m - log σ(m)
    return cost + label_smoothing * margin if label_smoothing else cost


def _log_sigmoid(values: Tensor) -> Tensor:
    from torch.nn.functional import logsigmoid

    return logsigmoid(values)


def sigmoid(pairs: Pairs, terms: Terms) -> Tensor:
    """DPO loss `[P]`: negative log-likelihood of the preferences under the implicit rewards (arXiv 2305.18290, eq. 7).

    `-(1 - ε) log σ(βh) - ε log σ(-βh)`; `ln 2` where policy and reference are equal. ε as in conservative DPO (E.
    Mitchell, A note on DPO with noisy preferences, 2023) and LLaMA-Factory; TRL's `sigmoid` no longer has it.
    """
    return bradley_terry(terms.beta * pairs.margin, terms.label_smoothing)


def hinge(pairs: Pairs, terms: Terms) -> Tensor:
    """Hinge loss `[P]` of the margin, `max(0, 1 - βh)`; 1 where policy and reference are equal.

    SLiC, arXiv 2305.10425, on log-ratios instead of log-probabilities, as in RSO, arXiv 2309.06657.
    """
    return (1.0 - terms.beta * pairs.margin).relu()


def ipo(pairs: Pairs, terms: Terms) -> Tensor:
    """IPO loss `[P]`: squared distance of the margin per token from `1/(2β)` (arXiv 2310.12036, eq. 17; β is its τ).

    `(h̄ - 1/(2β))²` with `h̄ = r_w/|y_w| - r_l/|y_l|`; `1/(2β)²` where policy and reference are equal. Log-ratios
    are means over tokens, as in TRL and LLaMA-Factory. The paper's equation has sums; its authors told TRL that
    their results are of means.
    """
    chosen = pairs.chosen_ratio / pairs.chosen_tokens.clamp(min=1)
    rejected = pairs.rejected_ratio / pairs.rejected_tokens.clamp(min=1)
    return (chosen - rejected - 0.5 / terms.beta).square()


def robust(pairs: Pairs, terms: Terms) -> Tensor:
    """Robust DPO loss `[P]`: an unbiased estimate of DPO's loss if a share ε of the labels is wrong (arXiv 2403.00409).

    `(-(1 - ε) log σ(βh) + ε log σ(-βh)) / (1 - 2ε)`; `ln 2` where policy and reference are equal. It may be
    negative. ValueError if ε is not in [0, 0.5).
    """
    noise, margin = terms.label_smoothing, terms.beta * pairs.margin
    if not 0.0 <= noise < 0.5:  # noqa: PLR2004 - half of the labels wrong says nothing
        raise ValueError(f"robust takes a share of wrong labels from 0 to below 0.5, and label_smoothing is {noise}.")
    # log σ(-m) = log σ(m) - m
    return -_log_sigmoid(margin) - noise / (1.0 - 2.0 * noise) * margin


def exo_pair(pairs: Pairs, terms: Terms) -> Tensor:
    """EXO loss `[P]`: reverse KL of the policy's preference from the labelled one (arXiv 2402.00856, eq. 16).

    `q (log q - log(1 - ε)) + (1 - q) (log(1 - q) - log ε)` with `q = σ(βh)`; ValueError if ε is not in (0, 1).
    """
    noise, margin = terms.label_smoothing, terms.beta * pairs.margin
    if not 0.0 < noise < 1.0:
        raise ValueError(
            f"exo_pair takes the logarithm of label_smoothing and of 1 less it, and label_smoothing is {noise}. Set it "
            "between 0 and 0.5, to 0.001 for instance."
        )
    kept, lost = _log_sigmoid(margin), _log_sigmoid(-margin)
    return kept.exp() * (kept - math.log1p(-noise)) + lost.exp() * (lost - math.log(noise))


def nca_pair(pairs: Pairs, terms: Terms) -> Tensor:
    """NCA loss `[P]` of two completions with hard labels (arXiv 2402.05369; TRL's `nca_pair`).

    `-log σ(β r_w) - ½ log σ(-β r_w) - ½ log σ(-β r_l)`; `2 ln 2` where policy and reference are equal. Absolute
    rewards keep the chosen completion from becoming less likely.
    """
    chosen, rejected = terms.beta * pairs.chosen_ratio, terms.beta * pairs.rejected_ratio
    return -_log_sigmoid(chosen) - 0.5 * (_log_sigmoid(-chosen) + _log_sigmoid(-rejected))


def kto_pair(pairs: Pairs, terms: Terms) -> Tensor:
    """KTO loss `[P]` with the KL divergence estimated from the other side of the pairs (arXiv 2402.01306, section 4).

    `½ (1 - σ(β(r_w - z_l))) + ½ (1 - σ(β(z_w - r_l)))` with `z_w = max(0, mean r_w)` and `z_l = max(0, mean r_l)`
    over the P pairs, without a gradient through z; ½ where policy and reference are equal. As in TRL up to 0.8, with
    the mean of its two halves.
    """
    chosen, rejected = pairs.chosen_ratio, pairs.rejected_ratio
    of_chosen, of_rejected = (ratio.detach().mean().clamp(min=0.0) for ratio in (chosen, rejected))
    lost = (terms.beta * (of_rejected - chosen)).sigmoid()
    kept = (terms.beta * (rejected - of_chosen)).sigmoid()
    return 0.5 * (lost + kept)


def sppo_hard(pairs: Pairs, terms: Terms) -> Tensor:
    """SPPO loss `[P]` with hard labels, as in TRL (arXiv 2405.00675, equation 4.7, with η = 1/β).

    `(r_w - 1/(2β))² + (r_l + 1/(2β))²`; `1/(2β²)` where policy and reference are equal.
    """
    target = 0.5 / terms.beta
    return (pairs.chosen_ratio - target).square() + (pairs.rejected_ratio + target).square()


def apo_zero(pairs: Pairs, terms: Terms) -> Tensor:
    """APO-zero loss `[P]`, for chosen completions that are better than the policy's own (arXiv 2408.06266, eq. 7).

    `1 - σ(β r_w) + σ(β r_l)`; 1 where policy and reference are equal. The constant 1 is TRL's.
    """
    return (-terms.beta * pairs.chosen_ratio).sigmoid() + (terms.beta * pairs.rejected_ratio).sigmoid()


def apo_down(pairs: Pairs, terms: Terms) -> Tensor:
    """APO-down loss `[P]`, for chosen completions that are worse than the policy's own (arXiv 2408.06266, eq. 8).

    `σ(β r_w) + 1 - σ(βh)`; 1 where policy and reference are equal. Both completions become less likely, the rejected
    one more so. The constant 1 is TRL's.
    """
    return (terms.beta * pairs.chosen_ratio).sigmoid() + (-terms.beta * pairs.margin).sigmoid()


def discopop(pairs: Pairs, terms: Terms) -> Tensor:
    """DiscoPOP loss `[P]`, the log-ratio modulated loss of arXiv 2406.08414, equation 5.

    `(1 - σ(βh/τ)) · -log σ(βh) + σ(βh/τ) · exp(-βh)` with `discopop_tau` τ in (0, 1]; `½ (ln 2 + 1)` where policy
    and reference are equal. The second product is one exponential here: its factors are 0 and infinite for a margin
    far below zero, which is NaN in TRL.
    """
    margin = terms.beta * pairs.margin
    scaled = margin / terms.discopop_tau
    return -(-scaled).sigmoid() * _log_sigmoid(margin) + (_log_sigmoid(scaled) - margin).exp()


def simpo(pairs: Pairs, terms: Terms) -> Tensor:
    """SimPO loss `[P]`: the mean log-probability is the reward, with a target margin γ (arXiv 2405.14734, eq. 6).

    `-(1 - ε) log σ(m) - ε log σ(-m)` with `m = β (p̄_w - p̄_l) - γ` and `p̄ = log π(y|x) / |y|`. TRL and
    LLaMA-Factory write γ/β inside the brackets: their `simpo_gamma` is the γ of the paper, as here. ε is TRL's.
    """
    margin = terms.beta * (pairs.chosen_mean - pairs.rejected_mean) - terms.gamma
    return bradley_terry(margin, terms.label_smoothing)


def orpo(pairs: Pairs, terms: Terms) -> Tensor:
    """ORPO loss `[P]`: fine-tunes on the chosen completion and raises its odds over the rejected one.

    `-p̄_w + β · odds_ratio_loss` (arXiv 2403.07691, equation 6; β is its λ) with `p̄ = log π(y|x) / |y|` over the
    completion's tokens, as in LLaMA-Factory; the first term of TRL's trainer is the mean over all tokens of the
    micro-batch, prompts included.
    """
    return terms.beta * odds_ratio_loss(pairs) - pairs.chosen_mean


def odds_ratio_loss(pairs: Pairs) -> Tensor:
    """Odds ratio loss `[P]`: `-log σ(log odds(y_w) - log odds(y_l))` with `odds(y) = P / (1 - P)`, `P = exp(p̄)`.

    arXiv 2403.07691, equations 4 and 7. `p̄` is at most -ε, the smallest difference from 1 in its dtype.
    """
    return -_log_sigmoid(_log_odds(pairs.chosen_mean) - _log_odds(pairs.rejected_mean))


def _log_odds(mean: Tensor) -> Tensor:
    import torch

    mean = mean.clamp(max=-torch.finfo(mean.dtype).eps)
    return mean - torch.log(-torch.expm1(mean))


def bco(pairs: Pairs, terms: Terms, delta: Tensor | float) -> Tensor:
    """BCO loss `[P]` (arXiv 2404.04656): the implicit reward is the logit of a classifier of chosen and rejected ones.

    `-log σ(β r_w - δ) - log σ(δ - β r_l)`; `2 ln 2` where policy and reference are equal and δ is 0.

    Args:
        delta: δ, the running mean of the rewards `β r` of all completions; a scalar without a gradient.
    """
    chosen, rejected = terms.beta * pairs.chosen_ratio, terms.beta * pairs.rejected_ratio
    return -_log_sigmoid(chosen - delta) - _log_sigmoid(delta - rejected)


def bco_pair(pairs: Pairs, terms: Terms) -> Tensor:
    """BCO loss `[P]` without the reward shift (arXiv 2404.04656; TRL's `bco_pair`).

    `-log σ(β r_w) - log σ(-β r_l)`; `2 ln 2` where policy and reference are equal.
    """
    return bco(pairs, terms, 0.0)


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


def aot(pairs: Pairs, terms: Terms) -> Tensor:
    """AOT loss `[P]` of paired preferences (arXiv 2406.05882; TRL's `aot`): margins should exceed the reference's.

    It aligns the distributions of rewards, not single pairs, so the loss depends on which pairs are in a micro-batch,
    and so on its size; a single pair has the loss of `sigmoid`.

    `-(1 - ε) log σ(βd) - ε log σ(-βd)` with the difference of the i-th smallest margins `d = (p_w - p_l)ᵢ - (p_ref,w
    - p_ref,l)ᵢ` and `p = log π(y|x)`. Each loss is returned at the pair whose policy margin has that rank.
    """
    return _by_rank(pairs.policy_margin, pairs.reference_margin, terms)


def aot_unpaired(pairs: Pairs, terms: Terms) -> Tensor:
    """AOT loss `[P]` of unpaired preferences (TRL's `aot_unpaired`): chosen rewards should exceed rejected ones.

    The loss of `aot` for the i-th smallest log-ratios, `d = (r_w)ᵢ - (r_l)ᵢ`. Each loss is returned at the pair
    whose chosen completion has that rank.
    """
    return _by_rank(pairs.chosen_ratio, pairs.rejected_ratio, terms)


def _by_rank(larger: Tensor, smaller: Tensor, terms: Terms) -> Tensor:
    return bradley_terry(terms.beta * rank_differences(larger, smaller), terms.label_smoothing)


def rank_differences(values: Tensor, others: Tensor) -> Tensor:
    """Difference `[P]` between each value and the value of the same rank in another sample (AOT, arXiv 2406.05882).

    (5, 1, 3) and (0, 2, 4) give (5 - 4, 1 - 0, 3 - 2).
    """
    order = values.detach().argsort(stable=True)
    ranks = order.argsort()
    return values - others.sort().values[ranks]


LOSSES: Mapping[str, Callable[[Pairs, Terms], Tensor]] = MappingProxyType(
    {
        "sigmoid": sigmoid,
        "hinge": hinge,
        "ipo": ipo,
        "kto_pair": kto_pair,
        "orpo": orpo,
        "simpo": simpo,
        "robust": robust,
        "exo_pair": exo_pair,
        "apo_zero": apo_zero,
        "apo_down": apo_down,
        "sppo_hard": sppo_hard,
        "nca_pair": nca_pair,
        "bco_pair": bco_pair,
        "discopop": discopop,
        "aot": aot,
        "aot_unpaired": aot_unpaired,
    }
)
"""Loss functions by value of `pref_loss`; each returns `[P]`. Traits: `declarations.stages.preference_losses`."""


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


def kto(
    ratio: Tensor, kl: Tensor | float, good: Tensor, beta: float, weights: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """KTO loss `[B]` of completions labelled good or bad, one by one (arXiv 2402.01306, section 4).

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
