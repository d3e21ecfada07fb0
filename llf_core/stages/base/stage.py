"""Base classes of the stages (a loss that is computed here, or a trainer of another library) and their measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from llf_core.config.declaration import PluginError
from llf_core.config.registry import stage_of
from llf_core.stages.base.ranks import sum_over_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from llf_core.config import RunConfig
    from llf_core.methods.method import Method
    from llf_core.modifiers.modifier import Modifier
    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.completion_scores import PromptScoring
    from llf_core.stages.token_accuracy import TokenAccuracy

    Batch = dict[str, Any]
    Number = Tensor | float
    Collate = Callable[[Sequence[Mapping[str, Any]]], Batch]
    RecordLosses = Callable[[Tensor, Tensor], object]


class Examples(Protocol):
    """Prepared examples by index: a `datasets.Dataset`, or a wrapper that adds columns."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: Any, /) -> Any:
        """Columns of an example by name."""


class Stage:
    """A training objective; declared by a `llf_core.config.declaration.StageDeclaration`. One object for each attempt.

    A stage subclasses `LossStage` or `TrainerStage`.

    Args:
        context: the training context; None if only the loss formula is needed.
    """

    def __init__(self, context: TrainingContext | None = None) -> None:
        self._context = context

    @property
    def context(self) -> TrainingContext:
        """Training context of the attempt; RuntimeError if the stage was created for its formula alone."""
        if self._context is None:
            raise RuntimeError(f"{type(self).__name__} has no training context: it was made for its loss alone.")
        return self._context

    @property
    def config(self) -> RunConfig | None:
        """Config of the run; None without a context."""
        return None if self._context is None else self._context.config

    @property
    def method(self) -> Method | None:
        """The method that adapted the run's model; None without a context or method."""
        return None if self._context is None else self._context.method

    @property
    def modifiers(self) -> tuple[Modifier, ...]:
        """The modifiers of the run's model, which may add to the loss; none without a context."""
        return () if self._context is None else self._context.modifiers

    def auxiliary_models(self) -> Sequence[nn.Module]:
        """Models that are trained beside the run's model: gradient checkpointing and checksums include them."""
        return ()

    def scoring(self) -> PromptScoring | None:
        """Scoring of sampled completions, for a preview of rewards before training; None if there is none."""
        return None

    def state(self) -> dict[str, Any]:
        """JSON state of a checkpoint beside the model, so that a resumed run repeats the losses exactly."""
        return {}

    def restore(self, state: Mapping[str, object]) -> None:
        """Restore the result of `state` (empty if the checkpoint has none), before the trainer is created."""

    def save(self, checkpoint: Path) -> None:
        """Write state that is not JSON, such as tensors, into the folder of a checkpoint, which is not complete yet."""

    def load(self, checkpoint: Path) -> None:
        """Read what `save` wrote. Called once, after `restore`."""


class LossStage(Stage, ABC):
    """A stage whose loss is computed here, by `loss_sum`; `llf_core.training.trainer.RunTrainer` makes its steps.

    Attributes:
        label_names: keys of a batch that its loss cannot be computed without.
        differences: metrics that are logged beside the measures: by name, the two measures whose means are
            subtracted.
        accuracy: counts correct tokens while an evaluation asks for it; a stage that declares `token_accuracy` gives
            it the distributions of its tokens. None otherwise.

    Args:
        context: the training context; None if only the loss formula is needed.
    """

    label_names: ClassVar[tuple[str, ...]] = ("labels",)
    differences: ClassVar[Mapping[str, tuple[str, str]]] = MappingProxyType({})
    batch_dependent: bool = False

    def __init__(self, context: TrainingContext | None = None) -> None:
        super().__init__(context)
        self.measures = Measures()
        self.accuracy: TokenAccuracy | None = None
        self._is_void = False

    @contextmanager
    def void_batch(self) -> Iterator[None]:
        """Context manager: computes the loss of a batch for the other ranks alone; it counts nowhere else."""
        kept = self.measures, self.accuracy
        self.measures, self.accuracy, self._is_void = Measures(), None, True
        try:
            yield
        finally:
            (self.measures, self.accuracy), self._is_void = kept, False

    def sum_over_ranks(self, own: Tensor) -> Tensor:
        """Sum of a tensor `[...]` over the batches of all ranks, detached; a `void_batch` adds nothing."""
        return sum_over_ranks(torch.zeros_like(own) if self._is_void else own)

    def collator(self, **options: object) -> Collate | None:  # noqa: ARG002
        """Create the function that makes batches, by the options of `llf_core.data.Collator`; None to use that one."""
        return None

    def examples(self, examples: Examples, *, held_out: bool = False) -> Examples:  # noqa: ARG002
        """The examples that the loader serves, with the columns that the loss needs beside tokens and labels.

        Returns:
            By default `examples` itself. A stage that samples its own data, such as PPO, returns placeholders for
                training and may leave out evaluation examples.
        """
        return examples

    @staticmethod
    def count(batch: Mapping[str, Any]) -> Tensor | None:  # noqa: ARG004
        """Number of units (pairs, completions) that a batch's loss is a mean over, an int64 scalar; None for tokens.

        The trainer divides by the sum over all micro-batches and ranks, so a step does not depend on how it is
        split.

        Args:
            batch: the collator's tensors, flattened (`[1, tokens]`) or padded (`[batch, seq]`).
        """
        return None

    def batches(self, batches: list[Batch]) -> list[Batch]:
        """The micro-batches that an optimizer step learns from, given the loader's; called after the step before.

        A stage that samples its own data, such as PPO, returns that instead. By default `batches` itself.
        """
        return batches

    @abstractmethod
    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        label_smoothing: float = 0.0,
        record_losses: RecordLosses | None = None,
    ) -> Tensor:
        """Sum of the loss over what `count` counts in one micro-batch: a float32 scalar with a graph.

        The caller divides it by the count of the whole optimizer step on all ranks.

        Args:
            model: the model under training, perhaps wrapped.
            batch: the collator's tensors, flattened (`[1, tokens]`) or padded (`[batch, seq]`).
            label_smoothing: share of the probability that is spread evenly over the vocabulary, 0 to 1.
            record_losses: called with the loss of each example and its number of tokens in the loss, `[examples]`
                each, by stages that know them.
        """

    def evaluated(self, means: Mapping[str, float]) -> None:
        """Receive the means of `measures` in an evaluation, over all processes; may raise to end the run."""

    def rollback(self) -> None:
        """Discard what `loss_sum` has changed here since `commit`: the step is computed again after out of memory."""
        self.measures.rollback()
        if self.accuracy is not None:
            self.accuracy.rollback()

    def commit(self) -> None:
        """Keep what `loss_sum` has changed: the gradients of a step, or an evaluation's batch, are complete."""
        self.measures.commit()
        if self.accuracy is not None:
            self.accuracy.commit()


class TrainerStage(Stage, ABC):
    """A stage whose steps and loss are made by the trainer of another library, such as TRL's."""

    @abstractmethod
    def trainer(self, settings: Callable[..., TrainingArguments], callbacks: list[TrainerCallback]) -> Trainer:
        """Create the trainer of an attempt, in place of `RunTrainer`.

        Args:
            settings: makes the trainer's arguments, given a class of `TrainingArguments` as `kind` and further
                values of it.

        Returns:
            A subclass of the library's trainer with `llf_core.stages.base.loop.TrainingLoop` as its first base, so
                that the learning rate and the last step of the run can be changed during training.
        """


def make_stage(config: RunConfig, context: TrainingContext) -> LossStage | TrainerStage:
    """Create the stage that a config selects; its class is imported here."""
    declaration = stage_of(config)
    made = declaration.load(Stage)(context)
    if not isinstance(made, LossStage | TrainerStage):
        raise PluginError(
            f"The stage {declaration.name} names {declaration.implementation}, which inherits from Stage itself. "
            f"Expected a subclass of LossStage or TrainerStage ({Stage.__module__})."
        )
    return made


class Measures:
    """Sums and counts by name, for exact means over micro-batches and ranks."""

    def __init__(self) -> None:
        self._pending: list[tuple[str, Number, Number]] = []
        self._committed: dict[str, tuple[Number, Number]] = {}

    def add(self, name: str, total: Number, count: Number) -> None:
        """Add to the sum and the count of a metric, pending until `commit`.

        Detached scalars are not read here, so the step does not wait for the device.
        """
        self._pending.append((name, total, count))

    def rollback(self) -> None:
        """Discard pending sums, since the step is computed again."""
        self._pending.clear()

    def commit(self) -> None:
        """Add the pending sums and counts to the committed ones."""
        for name, total, count in self._pending:
            before = self._committed.get(name, (0, 0))
            self._committed[name] = (before[0] + total, before[1] + count)
        self._pending.clear()

    def take(self) -> dict[str, tuple[float, float]]:
        """Return the committed sums and counts by name and clear them. Reads from the device: call once a log."""
        taken, self._committed = self._committed, {}
        return {name: (float(total), float(count)) for name, (total, count) in taken.items()}
