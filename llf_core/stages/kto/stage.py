"""Learning from single answers that are marked good or bad: KTO (arXiv 2402.01306), see `kto_loss.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from llf_core.config.declarations.stages.kto import KTOOptions
from llf_core.config.ignore_index import IGNORED
from llf_core.data.errors import DataError
from llf_core.data.pair_collator import PairCollator
from llf_core.stages.augmented_dataset import AugmentedDataset
from llf_core.stages.base.all_reduce import sum_over_ranks
from llf_core.stages.base.stage import LossStage
from llf_core.stages.logprobs import answer_log_probs, group_count
from llf_core.stages.losses.kto import kl_estimate, kto
from llf_core.stages.reference_logprobs import Reference, without_dropout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.base.stage import Batch, Examples, RecordLosses

MISMATCHED = ("other_ids", "other_labels")
"""Columns of an example: its question with the answer to another one."""
MAX_LOOKBACK = 50
"""Examples that are looked back through for another question."""


class KTO(LossStage):
    """Makes good answers likelier and bad ones less likely, measured against a reference.

    How far the model has come from the reference is estimated by answers that belong to other questions: that of the
    nearest example before it that asks something else, so that it is the same whatever a batch holds.
    """

    label_names: ClassVar[tuple[str, ...]] = ("targets",)
    batch_dependent: bool = True
    differences: ClassVar[Mapping[str, tuple[str, str]]] = {"rewards/margins": ("rewards/chosen", "rewards/rejected")}

    def __init__(self, context: TrainingContext) -> None:
        """Opens the reference; nothing in the model is random from here on."""
        super().__init__(context)
        options = context.config.options(KTOOptions)
        self.beta, self.ftx = context.config.stage.pref_beta, context.config.stage.pref_ftx
        self.weights = (options.kto_chosen_weight, options.kto_rejected_weight)
        without_dropout(context.model)
        self.reference = Reference(context, self.collator)

    def collator(self, **options: Any) -> PairCollator:
        """Batches of a question with its answer and with that to another one."""
        return PairCollator(**options, fork=self.context.forks, second=MISMATCHED)

    def examples(self, examples: Examples, *, held_out: bool = False) -> Examples:
        """Examples with a mismatched response, and reference log-probabilities of both if they are precomputed.

        Args:
            examples: the prepared examples.
            held_out: whether they are the evaluation set.

        Raises:
            DataError: all examples to train on have the same mark, or there is but one.
        """
        if not held_out:
            self._check(examples)
        others = MismatchedResponses(examples, self.context.config.data.cutoff_len)
        augmented: Examples = self.reference.with_reference_logprobs(
            AugmentedDataset(examples, others), held_out=held_out
        )
        return augmented

    def _check(self, examples: Any) -> None:
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
        """Number of labelled responses in a batch, an int64 scalar."""
        return group_count(batch)

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        label_smoothing: float = 0.0,  # noqa: ARG002 - that of tokens
        record_losses: RecordLosses | None = None,
    ) -> Tensor:
        """Sum of the KTO loss over the responses of a micro-batch.

        Args:
            model: see `LossStage.loss_sum`.
            batch: of `PairCollator`.
            label_smoothing: not used: a rule refuses it.
            record_losses: called with the loss of each response and its tokens, `[examples]` each.

        Returns:
            A float32 scalar with a graph.
        """
        answers = answer_log_probs(model, batch)
        policy, mismatched_policy = answers.sums.view(-1, 2).unbind(1)
        reference, mismatched_reference = self.reference.log_probs(batch).to(policy).view(-1, 2).unbind(1)
        good, lengths = batch["good"], answers.lengths[0::2]
        ratio = policy - reference
        mismatched_ratio = mismatched_policy.detach() - mismatched_reference
        total, count = sum_over_ranks(
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
    """Mismatched responses: for each example, the response of the nearest earlier example with another prompt.

    Called by `AugmentedDataset`; picklable for data loader workers.

    Attributes:
        examples: judged answers.
        cutoff: most tokens of a question and an answer.
    """

    examples: Any
    cutoff: int

    def __call__(self, index: int) -> dict[str, Any]:
        """Columns `MISMATCHED` of an example."""
        example = self.examples[index]
        question = _question(example)
        for back in range(1, min(len(self.examples), MAX_LOOKBACK)):
            other = self.examples[index - back]
            if _question(other) != question:
                return dict(zip(MISMATCHED, mismatched(example, other, self.cutoff), strict=True))
        return dict(zip(MISMATCHED, mismatched(example, self.examples[index - 1], self.cutoff), strict=True))


def mismatched(example: Mapping[str, Any], other: Mapping[str, Any], cutoff: int) -> tuple[list[int], list[int]]:
    """A question with the answer to another one.

    Args:
        example: whose question.
        other: whose answer.
        cutoff: most tokens; the answer loses its end, but not its first token.

    Returns:
        Ids and labels `[seq]` each, -100 in the question.
    """
    question, answer = _answer_start(example), _answer_start(other)
    ids = other["input_ids"][answer:][: max(cutoff - question, 1)]
    return [*example["input_ids"][:question], *ids], [IGNORED] * question + list(ids)


def _question(example: Mapping[str, Any]) -> list[int]:
    return list(example["input_ids"][: _answer_start(example)])


def _answer_start(example: Mapping[str, Any]) -> int:
    """Where the answer begins."""
    return next(index for index, label in enumerate(example["labels"]) if label != IGNORED)
