"""The base classes of the stages: a loss that is computed here, or a trainer that another library brings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from llf_core.config.declaration import PluginError
from llf_core.config.registry import stage_of
from llf_core.stages.base.measures import Measures
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
    Collate = Callable[[Sequence[Mapping[str, Any]]], Batch]
    RecordLosses = Callable[[Tensor, Tensor], object]


class Examples(Protocol):
    """Prepared examples by their index: a `datasets.Dataset`, or a wrapper around one that adds columns."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: Any, /) -> Any:
        """Columns of an example by name."""


class Stage:
    """A training objective; declared by a `llf_core.config.declaration.StageDeclaration`. One object for each attempt.

    A stage subclasses `LossStage` or `TrainerStage`; this class is what both have in common.

    Args:
        context: the training context; None if only the loss formula is needed.

    Raises:
        ModelError: a model beside the trained one does not exist or fit.
        DataError, BadExample: the stage cannot train on the data set, or the template cannot render its answers.
        ConfigError: the config of a model beside the trained one can no longer be read.
        UntrustedCodeError, TooMuchCodeError: Python code of a model would run, and the user has not allowed it, or
            could not review it.
        RewardError, ValueError, re.error: a reward function or `reward_pattern` cannot be used.
        PluginError: the implementation of a plug-in cannot be used, or two installed packages declare the same name or
            key, or one declares its options wrongly.
        KeyError: a record of the prepared data is no longer in its data set, or no longer a conversation.
        ValueError, RuntimeError: PEFT does not load an adapter that is trained further a second time.
        OSError: a file of a model or of the run cannot be read or written, or `LLF_HOME` or `LLF_HOME_MODE` is not
            valid.
        MemoryError: out of memory.
    """

    def __init__(self, context: TrainingContext | None = None) -> None:
        self._context = context

    @property
    def context(self) -> TrainingContext:
        """Training context of the attempt: config, model, data and tokenizer.

        Raises:
            RuntimeError: the stage was made for its formula alone.
        """
        if self._context is None:
            raise RuntimeError(f"{type(self).__name__} has no training context: it was made for its loss alone.")
        return self._context

    @property
    def config(self) -> RunConfig | None:
        """Config of the run; None where the stage was made for its formula alone, as tests of a formula do."""
        return None if self._context is None else self._context.config

    @property
    def method(self) -> Method | None:
        """The method that adapted the run's model, which the trainer calls; None without a context or method."""
        return None if self._context is None else self._context.method

    @property
    def modifiers(self) -> tuple[Modifier, ...]:
        """The modifiers of the run's model, which may add to the loss; none where there is no context."""
        return () if self._context is None else self._context.modifiers

    def auxiliary_models(self) -> Sequence[nn.Module]:
        """Models that are trained beside the run's model: gradient checkpointing and checksums include them."""
        return ()

    def scoring(self) -> PromptScoring | None:
        """What scores the completions that the stage samples, for a look at rewards before training; None if none."""
        return None

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the model, as JSON, so that a resumed run repeats the losses exactly."""
        return {}

    def restore(self, state: Mapping[str, object]) -> None:
        """Continue from the checkpoint whose `state` this is. Called once, before the trainer is created.

        Args:
            state: what `state` returned, as JSON; empty if the checkpoint has none.
        """

    def save(self, checkpoint: Path) -> None:
        """Write what is not JSON, such as tensors, into a checkpoint's folder, so that a resumed run continues with it.

        Args:
            checkpoint: folder of the checkpoint, which is not complete yet.

        Raises:
            OSError, RuntimeError, SafetensorError: the disk is full or cannot be written.
        """

    def load(self, checkpoint: Path) -> None:
        """Read what `save` wrote, so that the run continues with it. Called once, after `restore`."""


class LossStage(Stage, ABC):
    """A stage whose loss is computed here, by `loss_sum`; `llf_core.training.trainer.RunTrainer` makes its steps.

    Attributes:
        label_names: keys of a batch that its loss cannot be computed without.
        differences: metrics that are logged beside the measures: by name, the two measures whose means are subtracted.
        accuracy: counts correct tokens while an evaluation asks for it; a stage that declares `token_accuracy` gives it
            the distributions of its tokens. None otherwise.

    Args:
        context: the training context; None if only the loss formula is needed.

    Raises:
        ModelError: a model beside the trained one does not exist or fit.
        DataError, BadExample: the stage cannot train on the data set, or the template cannot render its answers.
        ConfigError: the config of a model beside the trained one can no longer be read.
        UntrustedCodeError, TooMuchCodeError: Python code of a model would run, and the user has not allowed it, or
            could not review it.
        RewardError, ValueError, re.error: a reward function or `reward_pattern` cannot be used.
        PluginError: the implementation of a plug-in cannot be used, or two installed packages declare the same name or
            key, or one declares its options wrongly.
        KeyError: a record of the prepared data is no longer in its data set, or no longer a conversation.
        ValueError, RuntimeError: PEFT does not load an adapter that is trained further a second time.
        OSError: a file of a model or of the run cannot be read or written, or `LLF_HOME` or `LLF_HOME_MODE` is not
            valid.
        MemoryError: out of memory.
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
        """Context manager: the loss of a batch is computed for the other ranks alone; nothing else counts it."""
        kept = self.measures, self.accuracy
        self.measures, self.accuracy, self._is_void = Measures(), None, True
        try:
            yield
        finally:
            (self.measures, self.accuracy), self._is_void = kept, False

    def sum_over_ranks(self, own: Tensor) -> Tensor:
        """Sum of a tensor `[...]` over the batches of all ranks, detached; of a `void_batch` nothing is added."""
        return sum_over_ranks(torch.zeros_like(own) if self._is_void else own)

    def collator(self, **options: object) -> Collate | None:  # noqa: ARG002
        """Create the function that makes batches of examples; None where `llf_core.data.Collator` does.

        A stage whose batches hold more than tokens and labels, such as pairs, overrides it.

        Args:
            options: the arguments of `llf_core.data.Collator`.
        """
        return None

    def examples(self, examples: Examples, *, held_out: bool = False) -> Examples:  # noqa: ARG002
        """The examples that the loader serves, with the columns that the loss needs beside tokens and labels.

        Returns:
            By default `examples` itself. A stage that samples its own data, as PPO does, returns placeholders for
            training and may leave out evaluation examples.
        """
        return examples

    @staticmethod
    def count(batch: Mapping[str, Any]) -> Tensor | None:  # noqa: ARG004
        """Number of units (pairs, completions) that a batch's loss is a mean over, an int64 scalar; None for tokens.

        The trainer divides by the sum over all micro-batches and ranks, so a step does not depend on how it is split.

        Args:
            batch: the collator's tensors, flattened (`[1, tokens]`) or padded (`[batch, seq]`).
        """
        return None

    def batches(self, batches: list[Batch]) -> list[Batch]:
        """The micro-batches that an optimizer step learns from, given the loader's; called after the step before.

        A stage that samples its own data, as PPO does, returns that instead. By default `batches` itself.
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
        """Sum of the loss over what `count` counts in one micro-batch.

        The caller divides it by the count of the whole optimizer step on all ranks, so that the split into
        micro-batches does not matter.

        Args:
            model: the model under training, perhaps wrapped.
            batch: the collator's tensors, flattened (`[1, tokens]`) or padded (`[batch, seq]`).
            label_smoothing: share of the probability that is spread evenly over the vocabulary, 0 to 1.
            record_losses: called with the loss of each of the batch's examples and the tokens that it is the sum over,
                `[examples]` each, by stages that know them; None if nobody needs them.

        Returns:
            A float32 scalar with a graph: the sum, not the mean.
        """

    def evaluated(self, means: Mapping[str, float]) -> None:
        """Receive the means of the stage's metrics in an evaluation, over all processes.

        A stage whose evaluation may turn out to be void, such as one in which no completion could be scored, ends the
        run here.

        Args:
            means: by the names of `measures`.
        """

    def rollback(self) -> None:
        """Discard what `loss_sum` has changed here since `commit`: after out of memory the step is computed again."""
        self.measures.rollback()
        if self.accuracy is not None:
            self.accuracy.rollback()

    def commit(self) -> None:
        """Keep what `loss_sum` has changed: the gradients of a step, or an evaluation's batch, are complete."""
        self.measures.commit()
        if self.accuracy is not None:
            self.accuracy.commit()


class TrainerStage(Stage, ABC):
    """A stage whose steps the trainer of another library makes, such as TRL's, which computes the loss itself.

    Its arguments and errors are those of `Stage`.
    """

    @abstractmethod
    def trainer(self, settings: Callable[..., TrainingArguments], callbacks: list[TrainerCallback]) -> Trainer:
        """Create the trainer of an attempt, in place of `RunTrainer`.

        The library's class computes the loss and makes the steps; the rest of the run is the same as for any stage.

        Args:
            settings: makes the trainer's arguments, given a class of `TrainingArguments` as `kind` and further values
                of it.

        Returns:
            A subclass of the library's trainer with `llf_core.stages.base.loop.TrainingLoop` as its first base, so that
            the learning rate and the last step of the run can be changed while it goes on.
        """


def make_stage(config: RunConfig, context: TrainingContext) -> LossStage | TrainerStage:
    """Create the stage that a config selects: its class is imported here, so that forms and rules need no torch."""
    declaration = stage_of(config)
    made = declaration.load(Stage)(context)
    if not isinstance(made, LossStage | TrainerStage):
        raise PluginError(
            f"The stage {declaration.name} names {declaration.implementation}, which inherits from Stage itself. "
            f"Expected a subclass of LossStage or TrainerStage ({Stage.__module__})."
        )
    return made
