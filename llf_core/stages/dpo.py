"""Preference learning without a reward model: DPO (arXiv 2305.18290) and its family, see `preference_losses.py`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from llf_core.config.declarations.stages.dpo import PREFERENCE_LOSSES, DPOOptions
from llf_core.data.collate import PairCollator
from llf_core.stages.base.stage import LossStage
from llf_core.stages.preference_losses import (
    LOSSES,
    Pairs,
    RunningMean,
    Terms,
    bco,
    desensitized_sums,
    odds_ratio_loss,
    orpo,
)
from llf_core.stages.reference_logprobs import Reference, answer_log_probs, group_count, without_dropout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.base.stage import Batch, Examples, RecordLosses
    from llf_core.stages.reference_logprobs import Answers


class DPO(LossStage):
    """Makes chosen completions likelier and rejected ones less likely, relative to a reference model."""

    label_names: ClassVar[tuple[str, ...]] = ("targets",)

    def __init__(self, context: TrainingContext) -> None:
        super().__init__(context)
        config, options = context.config, context.config.options(DPOOptions)
        self.formula, traits = LOSSES[options.pref_loss], PREFERENCE_LOSSES[options.pref_loss]
        self.terms = Terms(
            beta=config.stage.pref_beta,
            label_smoothing=options.dpo_label_smoothing,
            gamma=options.simpo_gamma,
            discopop_tau=options.discopop_tau,
        )
        self.batch_dependent = traits.batch_dependent or options.pref_bco_weight > 0
        self.ftx, self.bco_weight, self.ld_alpha = config.stage.pref_ftx, options.pref_bco_weight, options.ld_alpha
        self.baseline = RunningMean()
        self._kept = self.baseline.state()
        without_dropout(context.model)
        self.reference = Reference(context, self.collator) if traits.needs_reference else None

    def collator(self, **options: Any) -> PairCollator:
        """Create the collator of pairs, whose shared prompt is read once if the model allows it."""
        return PairCollator(**options, fork=self.context.forks)

    def examples(self, examples: Examples, *, held_out: bool = False) -> Examples:
        """Add the column `reference` to pairs, if the reference log-probabilities are precomputed."""
        return (
            examples if self.reference is None else self.reference.with_reference_logprobs(examples, held_out=held_out)
        )

    @staticmethod
    def count(batch: Mapping[str, Any]) -> Tensor:
        """Number of pairs in a batch of `PairCollator`, an int64 scalar."""
        return group_count(batch)

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        label_smoothing: float = 0.0,  # noqa: ARG002 - of tokens; refused by a rule
        record_losses: RecordLosses | None = None,
    ) -> Tensor:
        """Sum of the preference loss (`pref_loss`) over the pairs of a batch of `PairCollator`, a float32 scalar.

        `pref_bco_weight` w mixes in BCO as `(L + w · BCO) / (1 + w)`, as in LLaMA-Factory's `CustomDPOTrainer`. Then
        `pref_ftx` times the mean negative log-likelihood per token of the chosen completion is added.
        """
        answers = answer_log_probs(model, batch)
        pairs = self._pairs(answers, batch)
        costs = self.formula(pairs, self.terms)
        if self.bco_weight:
            costs = (costs + self.bco_weight * self._bco(pairs, training=model.training)) / (1 + self.bco_weight)
        if self.ftx:
            costs = costs - self.ftx * answers.sums[0::2] / answers.lengths[0::2]
        self._measure(answers, pairs)
        if record_losses is not None:
            record_losses(costs.detach(), answers.lengths.view(-1, 2).sum(1))
        return costs.sum()

    def _pairs(self, answers: Answers, batch: Batch) -> Pairs:
        policy = answers.sums
        if self.ld_alpha is not None:
            policy = desensitized_sums(answers.tokens, answers.owners, batch["groups"], self.ld_alpha)
        better, worse = policy.view(-1, 2).unbind(1)
        reference: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.reference is not None:
            reference = tuple(self.reference.log_probs(batch).to(policy).view(-1, 2).unbind(1))  # type: ignore[assignment]
        lengths = answers.lengths.view(-1, 2)
        return Pairs(better, worse, *reference, lengths[:, 0], lengths[:, 1])

    def _bco(self, pairs: Pairs, *, training: bool) -> Tensor:
        if training:
            rewards = self.terms.beta * (pairs.chosen_ratio + pairs.rejected_ratio).detach()
            total, count = self.sum_over_ranks(torch.stack([rewards.sum(), rewards.new_tensor(2.0 * len(rewards))]))
            self.baseline.add(total, count)
        return bco(pairs, self.terms, self.baseline.mean)

    def rollback(self) -> None:
        """Discard what the step has changed, BCO's running mean of rewards included."""
        super().rollback()
        self.baseline.load(self._kept)

    def commit(self) -> None:
        """Keep what the step has changed, BCO's running mean of rewards included."""
        super().commit()
        self._kept = self.baseline.state()

    def _measure(self, answers: Answers, pairs: Pairs) -> None:
        count = len(answers.lengths) // 2
        better, worse = answers.sums.detach().view(-1, 2).unbind(1)
        means = answers.sums.detach() / answers.lengths
        if pairs.reference_chosen is None or pairs.reference_rejected is None:
            # As in SimPO and ORPO: means over tokens.
            better, worse = means.view(-1, 2).unbind(1)
            rewards = better, worse
        else:
            rewards = better - pairs.reference_chosen, worse - pairs.reference_rejected
        chosen, rejected = (self.terms.beta * one for one in rewards)
        add = self.measures.add
        add("rewards/chosen", chosen.sum(), count)
        add("rewards/rejected", rejected.sum(), count)
        add("rewards/margins", (chosen - rejected).sum(), count)
        add("rewards/accuracies", (chosen > rejected).sum(), count)
        add("logps/chosen", better.sum(), count)
        add("logps/rejected", worse.sum(), count)
        odds = self.formula is orpo
        if odds or self.ftx:
            add("sft_loss", -means[0::2].sum(), count)
        if odds:
            add("odds_ratio_loss", odds_ratio_loss(pairs).detach().sum(), count)

    def state(self) -> dict[str, Any]:
        """BCO's running mean of rewards (`baseline`); empty without BCO."""
        return {"baseline": self.baseline.state()} if self.bco_weight else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore BCO's running mean of rewards; ValueError if it is not a finite sum and a count of at least 0."""
        if "baseline" in state:
            kept = RunningMean()
            kept.load(state["baseline"])
            if not math.isfinite(kept.total) or not 0 <= kept.count < math.inf:
                raise ValueError(f"its running mean is {kept.state()}, and expected are a finite sum and count")
            self.baseline.load(kept.state())
            self._kept = self.baseline.state()
