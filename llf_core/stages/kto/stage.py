"""Learning from single answers that are marked good or bad: KTO (arXiv 2402.01306), see `kto_loss.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from llf_core.config.ignore_index import IGNORED
from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.registry import Stage
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

OTHER = ("other_ids", "other_labels")
"""Columns of an example: its question with the answer to another one."""
FARTHEST = 50
"""Examples that are looked back through for another question."""


class KTOOptions(Section):
    """What a good and a bad answer count."""

    kto_chosen_weight: float = option(
        1.0,
        label="Desirable weight",
        help="Loss weight of desirable answers. Raise it where there are fewer of them.",
        minimum=0,
        source="LLaMA-Factory",
    )
    kto_rejected_weight: float = option(
        1.0,
        label="Undesirable weight",
        help="Loss weight of undesirable answers. Raise it where there are fewer of them.",
        minimum=0,
        source="LLaMA-Factory",
    )


class KTO(Stage):
    """Makes good answers likelier and bad ones less likely, measured against a reference.

    How far the model has come from the reference is estimated by answers that belong to other questions: that of the
    nearest example before it that asks something else, so that it is the same whatever a batch holds.
    """

    name: ClassVar[str] = "kto"
    label: ClassVar[str] = "kto (good and bad answers)"
    data_kind: ClassVar[str] = "judged"
    label_names: ClassVar[tuple[str, ...]] = ("targets",)
    batch_dependent: bool = True
    differences: ClassVar[Mapping[str, tuple[str, str]]] = {"rewards/margins": ("rewards/chosen", "rewards/rejected")}
    Options: ClassVar[type[Section]] = KTOOptions
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            ("per_device_train_batch_size", "stage"),
            lambda c: c.stage.stage == "kto" and c.training.per_device_train_batch_size == 1,
            "KTO estimates in each micro-batch how far the model has come from its reference, which one example does "
            "badly. Expected a batch of at least 2.",
            (Fix("Set to 4", {"per_device_train_batch_size": 4}),),
            severity="warning",
        ),
        Rule(
            ("kto_chosen_weight", "kto_rejected_weight"),
            lambda c: c.stage.stage == "kto" and c.get("kto_chosen_weight") == c.get("kto_rejected_weight") == 0,
            "Neither good nor bad answers count, so nothing is learned. Expected at least one weight above 0.",
            (Fix("Count both", {"kto_chosen_weight": 1.0, "kto_rejected_weight": 1.0}),),
        ),
    )

    def __init__(self, work: Any = None) -> None:
        """Opens the reference; nothing in the model is random from here on."""
        super().__init__(work)
        from llf_core.stages.reference_logprobs import Reference, without_dropout

        options: Any = work.config.options("stage.kto")
        self.beta, self.ftx = work.config.stage.pref_beta, work.config.stage.pref_ftx
        self.weights = (options.kto_chosen_weight, options.kto_rejected_weight)
        without_dropout(work.model)
        self.reference = Reference(work, self.collator)

    def collator(self, **options: Any) -> Any:
        """Batches of a question with its answer and with that to another one."""
        from llf_core.data.pair_collator import PairCollator

        return PairCollator(**options, fork=self.work.forks, second=OTHER)

    def examples(self, examples: Any, *, held_out: bool = False) -> Any:
        """The examples with the answer to another question, and with what the reference makes of both.

        Raises:
            DataError: all examples to train on have the same mark, or there is but one.
        """
        from llf_core.stages.augmented_dataset import AugmentedDataset

        if not held_out:
            self._check(examples)
        others = Others(examples, self.work.config.data.cutoff_len)
        return self.reference.beside(AugmentedDataset(examples, others), held_out=held_out)

    def _check(self, examples: Any) -> None:
        from llf_core.data import DataError

        good, count = sum(examples["good"]), len(examples)
        if 0 < good < count:
            return
        marked = "good" if good else "bad"
        raise DataError(
            f"All {count:,} examples are marked {marked}. KTO learns from both good and bad answers: look which column "
            "the mark is read from (dataset_columns: kto_tag), or add the others. Good answers alone are for sft."
        )

    @staticmethod
    def count(batch: Mapping[str, Any]) -> Any:
        """Answers that are marked."""
        return batch["ends"].new_tensor(batch["groups"])

    def loss_sum(
        self,
        model: nn.Module,
        batch: dict[str, Any],
        label_smoothing: float = 0.0,  # noqa: ARG002 - that of tokens
        note: Callable[[Tensor, Tensor], object] | None = None,
    ) -> Tensor:
        """Sum over the answers of a batch, see `Stage.loss_sum`."""
        import torch

        from llf_core.stages.base.all_reduce import sum_over_ranks
        from llf_core.stages.logprobs import answer_log_probs
        from llf_core.stages.losses.kto import kl_estimate, kto

        answers = answer_log_probs(model, batch)
        policy, foreign = answers.sums.view(-1, 2).unbind(1)
        reference, reference_foreign = self.reference.log_probs(batch).to(policy).view(-1, 2).unbind(1)
        good, lengths = batch["good"], answers.lengths[0::2]
        ratio = policy - reference
        far = foreign.detach() - reference_foreign
        total, count = sum_over_ranks(torch.stack([far.sum(), far.new_tensor(float(len(far)))]))
        kl = kl_estimate((total / count).reshape(1))
        costs = kto(ratio, kl, good, self.beta, self.weights)
        if self.ftx:
            costs = costs - self.ftx * good * policy / lengths
        self._measure(policy.detach(), ratio.detach(), good, kl)
        if note is not None:
            note(costs.detach(), lengths)
        return costs.sum()

    def _measure(self, policy: Tensor, ratio: Tensor, good: Tensor, kl: Tensor) -> None:
        self.measures.add("kl", kl, 1)
        for name, chosen in (("chosen", good), ("rejected", ~good)):
            self.measures.add(f"rewards/{name}", self.beta * ratio[chosen].sum(), chosen.sum())
            self.measures.add(f"logps/{name}", policy[chosen].sum(), chosen.sum())


@dataclass(frozen=True)
class Others:
    """The answer to another question for each example, as `AugmentedDataset` takes it; data loader workers get it.

    It is that of the nearest example before it which asks something else.

    Attributes:
        examples: judged answers.
        cutoff: most tokens of a question and an answer.
    """

    examples: Any
    cutoff: int

    def __call__(self, place: int) -> dict[str, Any]:
        """Its columns, see `OTHER`."""
        example = self.examples[place]
        asked = _question(example)
        for back in range(1, min(len(self.examples), FARTHEST)):
            other = self.examples[place - back]
            if _question(other) != asked:
                return dict(zip(OTHER, mismatched(example, other, self.cutoff), strict=True))
        return dict(zip(OTHER, mismatched(example, self.examples[place - 1], self.cutoff), strict=True))


def mismatched(example: Mapping[str, Any], other: Mapping[str, Any], cutoff: int) -> tuple[list[int], list[int]]:
    """A question with the answer to another one.

    Args:
        example: whose question.
        other: whose answer.
        cutoff: most tokens; the answer loses its end, but not its first token.

    Returns:
        Ids and labels `[seq]` each, -100 in the question.
    """
    question, answer = _start(example), _start(other)
    ids = other["input_ids"][answer:][: max(cutoff - question, 1)]
    return [*example["input_ids"][:question], *ids], [IGNORED] * question + list(ids)


def _question(example: Mapping[str, Any]) -> list[int]:
    return list(example["input_ids"][: _start(example)])


def _start(example: Mapping[str, Any]) -> int:
    """Where the answer begins."""
    return next(place for place, label in enumerate(example["labels"]) if label != IGNORED)
