"""Preference learning from single completions labelled good or bad: KTO (arXiv 2402.01306), section 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from llf_core.config.data import IGNORED
from llf_core.config.declarations.stages.dpo import KTOOptions
from llf_core.data.collate import PairCollator
from llf_core.data.errors import DataError
from llf_core.stages.base.stage import LossStage
from llf_core.stages.preference_losses import kl_estimate, kto
from llf_core.stages.reference_logprobs import (
    AugmentedDataset,
    Reference,
    answer_log_probs,
    group_count,
    without_dropout,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datasets import Dataset
    from torch import Tensor, nn

    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.base.stage import Batch, Examples, RecordLosses

MISMATCHED = ("other_ids", "other_labels")
"""Columns of an example's prompt with the completion of another example."""
MAX_LOOKBACK = 49


class KTO(LossStage):
    """Makes good completions likelier and bad ones less likely, relative to a reference model.

    The KL divergence from the reference is estimated on mismatched completions: a prompt with the completion of the
    nearest earlier example that has another prompt, independent of the batch.
    """

    label_names: ClassVar[tuple[str, ...]] = ("targets",)
    batch_dependent: bool = True
    differences: ClassVar[Mapping[str, tuple[str, str]]] = {"rewards/margins": ("rewards/chosen", "rewards/rejected")}

    def __init__(self, context: TrainingContext) -> None:
        super().__init__(context)
        options = context.config.options(KTOOptions)
        self.beta, self.ftx = context.config.stage.pref_beta, context.config.stage.pref_ftx
        self.weights = (options.kto_chosen_weight, options.kto_rejected_weight)
        without_dropout(context.model)
        self.reference = Reference(context, self.collator)

    def collator(self, **options: Any) -> PairCollator:
        """Create the collator of prompts with their own and with a mismatched completion."""
        return PairCollator(**options, fork=self.context.forks, second=MISMATCHED)

    def examples(self, examples: Examples, *, held_out: bool = False) -> Examples:
        """Add a mismatched completion to each example, and reference log-probabilities of both if precomputed."""
        if not held_out:
            self._check(examples)
        others = MismatchedResponses(examples, self.context.config.data.cutoff_len)
        augmented: Examples = self.reference.with_reference_logprobs(
            AugmentedDataset(examples, others), held_out=held_out
        )
        return augmented

    @staticmethod
    def _check(examples: Dataset) -> None:
        good, count = sum(examples["good"]), len(examples)
        if 0 < good < count:
            return
        marked = "good" if good else "bad"
        raise DataError(
            f"All {count:,} examples are marked {marked}. KTO learns from both good and bad answers: look which column "
            "the mark is read from (dataset_columns: kto_tag), or add the others. Good answers alone are for sft."
        )

    @staticmethod
    def count(batch: Mapping[str, Any]) -> Tensor:
        """Number of labelled completions in a batch of `PairCollator`, an int64 scalar."""
        return group_count(batch)

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        label_smoothing: float = 0.0,  # noqa: ARG002 - of tokens; refused by a rule
        record_losses: RecordLosses | None = None,
    ) -> Tensor:
        """Sum of the KTO loss (`preference_losses.kto`) over a batch of `PairCollator` with `good`, a float32 scalar.

        `pref_ftx` times the mean negative log-likelihood per token is added for good completions, as in
        LLaMA-Factory's `CustomKTOTrainer`.
        """
        answers = answer_log_probs(model, batch)
        policy, mismatched_policy = answers.sums.view(-1, 2).unbind(1)
        reference, mismatched_reference = self.reference.log_probs(batch).to(policy).view(-1, 2).unbind(1)
        good, lengths = batch["good"], answers.lengths[0::2]
        ratio = policy - reference
        mismatched_ratio = mismatched_policy.detach() - mismatched_reference
        total, count = self.sum_over_ranks(
            torch.stack([mismatched_ratio.sum(), mismatched_ratio.new_tensor(float(len(mismatched_ratio)))])
        )
        kl = kl_estimate((total / count).reshape(1))
        costs = kto(ratio, kl, good, self.beta, self.weights)
        if self.ftx:
            costs = costs - self.ftx * good * policy / lengths
        self._measure(policy.detach(), ratio.detach(), good, kl)
        if record_losses is not None:
            record_losses(costs.detach(), lengths)
        return costs.sum()

    def _measure(self, policy: Tensor, ratio: Tensor, good: Tensor, kl: Tensor) -> None:
        self.measures.add("kl", kl, 1)
        for name, chosen in (("chosen", good), ("rejected", ~good)):
            self.measures.add(f"rewards/{name}", self.beta * ratio[chosen].sum(), chosen.sum())
            self.measures.add(f"logps/{name}", policy[chosen].sum(), chosen.sum())


@dataclass(frozen=True)
class MismatchedResponses:
    """For each example, the completion of the nearest earlier example with another prompt, up to `cutoff` tokens."""

    examples: Examples
    cutoff: int

    def __call__(self, index: int) -> dict[str, Any]:
        """Columns `MISMATCHED` of the example at an index, token ids and labels `[seq]` each.

        If the last `MAX_LOOKBACK` examples have the same prompt, the completion is that of the example before it.
        """
        example = self.examples[index]
        prompt = _prompt(example)
        for back in range(1, min(len(self.examples), MAX_LOOKBACK + 1)):
            other = self.examples[index - back]
            if _prompt(other) != prompt:
                return dict(zip(MISMATCHED, mismatched(example, other, self.cutoff), strict=True))
        return dict(zip(MISMATCHED, mismatched(example, self.examples[index - 1], self.cutoff), strict=True))


def mismatched(example: Mapping[str, Any], other: Mapping[str, Any], cutoff: int) -> tuple[list[int], list[int]]:
    """Join the prompt of one example with the completion of another: token ids and labels, `[seq]` each.

    The completion is truncated to `cutoff` tokens in all, but keeps its first token.
    """
    prompt, answer = _answer_start(example), _answer_start(other)
    ids = other["input_ids"][answer:][: max(cutoff - prompt, 1)]
    return [*example["input_ids"][:prompt], *ids], [IGNORED] * prompt + list(ids)


def _prompt(example: Mapping[str, Any]) -> list[int]:
    return list(example["input_ids"][: _answer_start(example)])


def _answer_start(example: Mapping[str, Any]) -> int:
    return next(index for index, label in enumerate(example["labels"]) if label != IGNORED)
