"""Supervised fine-tuning, with the token weights of DFT, EAFT and ASFT, and pre-training on every token."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from llf_core.acceleration.kernels.cross_entropy import nll_sum
from llf_core.acceleration.kernels.distillation import divergence_sum
from llf_core.acceleration.patching.causal_head import forward
from llf_core.config.data import IGNORED
from llf_core.config.declarations.stages.sft import SFTOptions
from llf_core.stages.base.stage import LossStage
from llf_core.stages.reference_policy import autocast, reference_policy
from llf_core.stages.token_accuracy import record_document_losses, shifted_targets

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llf_core.acceleration.kernels.cross_entropy import TokenWeights
    from llf_core.acceleration.patching.causal_head import Head
    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.base.stage import Batch, RecordLosses
    from llf_core.stages.token_accuracy import TokenAccuracy


LIKELIEST = 20
"""Number of likeliest tokens that the entropy is computed over, with renormalized probabilities."""

MAX_ENTROPY = 3.0
"""Entropy of a uniform distribution over 20 tokens in nats, `ln 20 = 2.996`, rounded as in the authors' code."""


def nll_of_batch(
    model: nn.Module,
    batch: Batch,
    label_smoothing: float = 0.0,
    record_losses: RecordLosses | None = None,
    accuracy: TokenAccuracy | None = None,
) -> Tensor:
    """Sum of the negative log-likelihoods of a micro-batch's supervised tokens in nats, a float32 scalar.

    transformers' `ForCausalLMLoss`, summed; label smoothing as in arXiv 1512.00567, section 7. `accuracy` counts the
    tokens that are the most likely ones.
    """
    targets = shifted_targets(batch["labels"])
    record_costs = None if record_losses is None else partial(record_document_losses, batch, record_losses)
    weights = None if accuracy is None else accuracy.observe()

    def objective(hidden: Tensor, head: Head) -> Tensor:
        return nll_sum(hidden, head, targets, label_smoothing, record_costs, weights)

    loss: Tensor = forward(model, batch, objective)
    if accuracy is not None:
        accuracy.add(batch)
    return loss


class SFT(LossStage):
    """Supervised fine-tuning on the completions of conversations."""

    def __init__(self, context: TrainingContext | None = None) -> None:
        super().__init__(context)
        options = SFTOptions() if context is None else context.config.options(SFTOptions)
        self.weights = token_weights(options)
        self.kl_weight = options.asft_alpha if options.use_asft_loss else 0.0
        self.reference = reference_policy(self.context) if self.kl_weight else None

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        label_smoothing: float = 0.0,
        record_losses: RecordLosses | None = None,
    ) -> Tensor:
        """Sum of the loss over the supervised tokens of a micro-batch, a float32 scalar: plain, DFT, EAFT or ASFT.

        With weights `w` (`token_weights`) the loss of a token is `-sg(w) log p`, where `sg` stops the gradient; ASFT
        adds `α KL(reference ‖ model)` (arXiv 2509.23753, equation 10). The plain likelihood is then also measured as
        `sft_loss`, and the divergence of ASFT as `reference_kl`.
        """
        if self.weights is None:
            return nll_of_batch(model, batch, label_smoothing, record_losses, accuracy=self.accuracy)
        targets = shifted_targets(batch["labels"])
        learned = (targets.flatten() != IGNORED).nonzero()[:, 0]
        likelihoods = NLLMeasure(self.weights)
        weights = likelihoods if self.accuracy is None else self.accuracy.observe(likelihoods)
        taught: tuple[Tensor, Head] | None = None
        if self.reference is not None:
            with torch.no_grad(), self.reference.active() as reference, autocast(self.context):
                taught = forward(reference, batch, lambda hidden, head: (hidden, head))
        costs: list[Tensor] = []
        penalties: list[Tensor] = []

        def objective(hidden: Tensor, head: Head) -> Tensor:
            loss = nll_sum(hidden, head, targets, label_smoothing, lambda _, each: costs.append(each), weights)
            if taught is None:
                return loss
            kl = divergence_sum(
                hidden, head, *taught, learned, beta=0.0, record_losses=lambda _, each: penalties.append(each)
            )
            self.measures.add("reference_kl", kl.detach(), len(learned))
            return loss + self.kl_weight * kl

        loss: Tensor = forward(model, batch, objective)
        self.measures.add("sft_loss", likelihoods.total, len(learned))
        if self.accuracy is not None:
            self.accuracy.add(batch)
        if record_losses is not None:
            penalty = self.kl_weight * penalties[0] if penalties else 0.0
            record_document_losses(batch, record_losses, learned, costs[0] + penalty)
        return loss


class NLLMeasure:
    """Token weights that also sum up the unweighted losses in nats (`total`)."""

    def __init__(self, weights: TokenWeights) -> None:
        self._weights = weights
        self.total: Tensor | float = 0.0

    def __call__(self, log_probs: Tensor, costs: Tensor) -> Tensor:
        """Weights `[rows]` of a block, see `kernels.cross_entropy.TokenWeights`; its losses are added to `total`."""
        self.total = self.total + costs.sum()
        return self._weights(log_probs, costs)


def token_weights(options: SFTOptions) -> TokenWeights | None:
    """Select the token weights of a config; None for the plain cross-entropy. ASFT has those of DFT."""
    if options.use_eaft_loss:
        return partial(eaft_weights, alpha=options.eaft_alpha)
    return dft_weights if options.use_dft_loss or options.use_asft_loss else None


def dft_weights(log_probs: Tensor, costs: Tensor) -> Tensor:  # noqa: ARG001 - as all weights of tokens
    """Weight `p` of each token, `[rows]`, from `costs` `-log p`; it cancels the factor `1/p` of the gradient.

    Dynamic Fine-Tuning, arXiv 2508.05629, equation 9; `use_dft_loss` of LLaMA-Factory.
    """
    return costs.neg().exp_()


def eaft_weights(log_probs: Tensor, costs: Tensor, alpha: float) -> Tensor:  # noqa: ARG001 - as all weights of tokens
    """Weight `(H / 3)^α` of each token, `[rows]`, with the entropy `H` of the 20 likeliest tokens at its position.

    Entropy-Adaptive Fine-Tuning, arXiv 2601.02151; `use_eaft_loss` of LLaMA-Factory.

    Args:
        log_probs: log-probabilities of the vocabulary, `[rows, V]`.
        alpha: α, at least 0. 0 gives every token the weight 1.
    """
    likeliest = log_probs.topk(min(LIKELIEST, log_probs.shape[-1]), dim=-1).values.log_softmax(-1)
    finite = likeliest.clamp(min=torch.finfo(likeliest.dtype).min)  # p log p is 0 where p is 0
    entropy = -(likeliest.exp() * finite).sum(-1)
    return (entropy / MAX_ENTROPY) ** alpha


class PT(LossStage):
    """Pre-training on plain texts: the loss of SFT, with every token supervised."""

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        label_smoothing: float = 0.0,
        record_losses: RecordLosses | None = None,
    ) -> Tensor:
        """Sum of the negative log-likelihoods of the tokens of a micro-batch, a float32 scalar."""
        return nll_of_batch(model, batch, label_smoothing, record_losses, accuracy=self.accuracy)
