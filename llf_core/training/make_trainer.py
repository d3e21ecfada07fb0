"""Creates the trainer of an attempt, with its callbacks and restored state."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback

from llf_core.config.rules.conditions import no_accuracy_reason
from llf_core.config.rules.evaluation_metrics import best_metric, evaluation_metrics
from llf_core.data import Collator
from llf_core.data.media_limits import MediaLimits
from llf_core.data.streaming import Stream
from llf_core.runs import Checkpoints
from llf_core.runs.step_counters import COUNTERS, WHAT_TO_DO, CountersError, read_counters
from llf_core.stages.base.stage import LossStage, TrainerStage
from llf_core.training.arguments import training_arguments
from llf_core.training.checkpoint_check import as_damaged
from llf_core.training.early_stopping import early_stopping
from llf_core.training.evaluation_sets import positions_by_set
from llf_core.training.freed_memory import FreedMemory
from llf_core.training.live_changes import active_at_checkpoint
from llf_core.training.method_callback import MethodCallback
from llf_core.training.trainer import RunTrainer, StreamedRows

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import TrainerCallback

    from llf_core.config import RunConfig
    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.base.loop import TrainingLoop
    from llf_core.training.answer_metrics import AnswerMetrics
    from llf_core.training.metrics_callback import MetricsCallback

FILL = 64  # packed rows on a CPU are padded to a multiple of this number of tokens, see `Collator`


def make_trainer(  # noqa: PLR0913 - the parts of an attempt
    context: TrainingContext,
    stage: LossStage | TrainerStage,
    progress: MetricsCallback,
    checkpoint: Path | None = None,
    *,
    evaluates: bool = False,
    answers: AnswerMetrics | None = None,
) -> TrainingLoop:
    """Create the trainer of an attempt: of the stage's library, or a `RunTrainer` that minimizes the stage's loss.

    The stage's state is restored first, since the length of its data may depend on it. `progress` gets the trainer.

    Raises:
        CountersError: the counters of the checkpoint, or the state of the stage in them, are missing or broken.
    """
    folder, config = context.folder, context.config
    callbacks: list[TrainerCallback] = [progress]
    if context.method is not None and not evaluates:
        callbacks.insert(0, MethodCallback(context.method, Checkpoints(folder), checkpoint))
    if context.plan.device == "cpu":
        callbacks.append(FreedMemory())
    train = context.data.train
    options: dict[str, Any] = {
        "tokenizer": context.tokenizer,
        "processor": context.processor,
        "flatten": context.flattens,
        "fill": FILL if context.plan.device == "cpu" else 1,
        "limits": MediaLimits.of(config),
    }
    if checkpoint is not None:
        state = read_counters(checkpoint).get("stage", {})
        try:
            stage.restore(state)
        except (KeyError, TypeError, ValueError) as error:
            said = (
                f"The stage's state in {checkpoint.name}/{COUNTERS} is not one of stage {config.stage.stage}: {error}."
            )
            raise CountersError(said, WHAT_TO_DO) from error
        with as_damaged(checkpoint, f"What stage {config.stage.stage} has stored"):
            stage.load(checkpoint)
    if config.training.early_stopping_steps:
        callbacks.append(early_stopping(config.training.early_stopping_steps, checkpoint))
    better = metric_directions(config, answers).get(best_metric(config))
    more: dict[str, Any] = {}
    if better is not None and config.training.greater_is_better is None:
        more["greater_is_better"] = better
    settings = partial(
        training_arguments,
        config,
        context.plan,
        folder,
        evaluates=context.data.eval is not None,
        resume_from=None if checkpoint is None else str(checkpoint),
        max_steps=None if checkpoint is None else active_at_checkpoint(folder, checkpoint).get("max_steps"),
        **more,
    )
    trainer: TrainingLoop
    if isinstance(stage, TrainerStage):
        trainer = stage.trainer(settings, callbacks)
    else:
        trainer = RunTrainer(
            stage=stage,
            model=context.model,
            args=settings(),
            train_dataset=None if evaluates else _examples(stage, train),
            eval_dataset=None if context.data.eval is None else stage.examples(context.data.eval, held_out=True),
            data_collator=stage.collator(**options) or Collator(**options),
            processing_class=context.tokenizer,
            callbacks=callbacks,
        )
        trainer.answer_metrics = answers
        if not evaluates:
            trainer.counts_accuracy = config.evaluation.compute_accuracy and not no_accuracy_reason(config)
            trainer.evaluation_sets = positions_by_set(config, context.data)
    trainer.remove_callback(PrinterCallback)  # MetricsCallback prints each record once, for people
    progress.trainer = trainer
    return trainer


def metric_directions(config: RunConfig, answers: AnswerMetrics | None) -> dict[str, bool]:
    """Whether a higher value is better, by name (without `eval_`) of each metric of a run's evaluations."""
    found = evaluation_metrics(config) | ({} if answers is None else answers.directions)
    return {name: better for name, better in found.items() if better is not None}


def _examples(stage: LossStage, train: Any) -> Any:
    return StreamedRows(train) if isinstance(train, Stream) else stage.examples(train)
