"""The base class of the stages: what a training step minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from llf_core.config.registry import stage_of
from llf_core.stages.base.measures import Measures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from llf_core.config import RunConfig
    from llf_core.stages.base.context import TrainingContext

    Batch = dict[str, Any]
    Collate = Callable[[Sequence[Mapping[str, Any]]], Batch]
    RecordLosses = Callable[[Tensor, Tensor], object]


class Examples(Protocol):
    """Prepared examples by their index: a `datasets.Dataset`, or another of ours around one."""

    def __len__(self) -> int:
        """The number of examples."""

    def __getitem__(self, index: Any, /) -> Any:
        """The columns of an example."""


class Stage(ABC):
    """A training objective; declared by a `llf_core.config.declaration.StageDeclaration`. One object for each attempt.

    Attributes:
        label_names: keys of a batch that its loss cannot be computed without.
        differences: metrics that are logged beside the measures: by name, the two measures whose means are subtracted.
        batch_dependent: whether the loss of an example depends on the others of its micro-batch.
        measures: what it measures beside its loss.

    Args:
        context: the training context; None if only the loss formula is needed.
    """

    label_names: ClassVar[tuple[str, ...]] = ("labels",)
    differences: ClassVar[Mapping[str, tuple[str, str]]] = MappingProxyType({})
    batch_dependent: bool = False

    def __init__(self, context: TrainingContext | None = None) -> None:
        self._context = context
        self.measures = Measures()

    @property
    def context(self) -> TrainingContext:
        """The training context of the attempt.

        Raises:
            RuntimeError: the stage was made for its formula alone.
        """
        if self._context is None:
            raise RuntimeError(f"{type(self).__name__} has no training context: it was made for its loss alone.")
        return self._context

    @property
    def config(self) -> RunConfig | None:
        """The run's config; None where the stage was made for its formula alone."""
        return None if self._context is None else self._context.config

    def auxiliary_models(self) -> Sequence[nn.Module]:
        """Models that are trained beside the run's model, and need memory for it."""
        return ()

    def collator(self, **options: Any) -> Collate | None:  # noqa: ARG002
        """Makes batches of examples; None where `llf_core.data.Collator` does.

        Args:
            options: the arguments of `llf_core.data.Collator`.
        """
        return None

    def examples(self, examples: Examples, *, held_out: bool = False) -> Examples:  # noqa: ARG002
        """Examples with the columns that the stage adds, before collation.

        Args:
            examples: the prepared examples.
            held_out: whether they are the evaluation set.
        """
        return examples

    def trainer(
        self,
        settings: Callable[..., TrainingArguments],  # noqa: ARG002
        callbacks: list[TrainerCallback],  # noqa: ARG002
    ) -> Trainer | None:
        """The trainer of a stage whose steps another library makes; None where `RunTrainer` makes them.

        Args:
            settings: makes the trainer's arguments, given a class of `TrainingArguments` and further values of it.
            callbacks: the run's, which the trainer must call.
        """
        return None

    @staticmethod
    def count(batch: Mapping[str, Any]) -> Tensor | None:  # noqa: ARG004
        """The number of things in a batch that the loss is a mean over, an int64 scalar; None where that is tokens."""
        return None

    def batches(self, batches: list[Batch]) -> list[Batch]:
        """What an optimizer step learns from, given the loader's batches for it; called after the step before."""
        return batches

    @abstractmethod
    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        label_smoothing: float = 0.0,
        record_losses: RecordLosses | None = None,
    ) -> Tensor:
        """Sum of the loss over what `count` counts in one micro-batch.

        Args:
            model: the model under training, perhaps wrapped.
            batch: the collator's tensors.
            label_smoothing: share of the probability that is spread evenly over the vocabulary, 0 to 1.
            record_losses: called with the loss of each of the batch's examples and the tokens that it is the sum over,
                `[examples]` each, by stages that know them.

        Returns:
            A float32 scalar with a graph: the sum, not the mean, so that the caller can divide by the count of the
            whole optimizer step on all ranks.
        """

    def evaluated(self, means: Mapping[str, float]) -> None:  # noqa: B027 - a hook that not all need
        """Receives the means of its measures in an evaluation, over all processes.

        Raises:
            StopTraining: the run cannot go on.
        """

    def rollback(self) -> None:
        """Forgets what `loss_sum` has changed here since `commit`: the step is made again in smaller parts."""
        self.measures.rollback()

    def commit(self) -> None:
        """Keeps what `loss_sum` has changed: the gradients of a step, or an evaluation's batch, are complete."""
        self.measures.commit()

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the model, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - a hook that not all need
        """Continues from the checkpoint whose `state` this is."""

    def save(self, checkpoint: Path) -> None:  # noqa: B027 - a hook that not all need
        """Writes what is not JSON into a checkpoint's folder."""

    def load(self, checkpoint: Path) -> None:  # noqa: B027 - a hook that not all need
        """Reads what `save` wrote."""


def make_stage(config: RunConfig, context: TrainingContext) -> Stage:
    """Create the stage that a config selects.

    Args:
        config: of the run.
        context: the training context.
    """
    return stage_of(config).load(Stage)(context)
