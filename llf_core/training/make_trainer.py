"""Creates the trainer of an attempt, with its arguments, callbacks and restored state."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PrinterCallback, TrainingArguments

from llf_core.config import fields
from llf_core.config.registry import optimizer_of
from llf_core.config.rules.conditions import no_accuracy_reason, no_sets_reason, shards_weights
from llf_core.config.rules.evaluation import best_metric, evaluation_metrics, evaluation_sets
from llf_core.data import Collator
from llf_core.data.example_store import SET_COLUMN
from llf_core.data.media_files import MediaLimits
from llf_core.data.streaming import Stream
from llf_core.runs import Checkpoints
from llf_core.runs.step_counters import COUNTERS, WHAT_TO_DO, CountersError, read_counters
from llf_core.stages.base.stage import LossStage, TrainerStage
from llf_core.training.callbacks import FreedMemory, MethodCallback, early_stopping
from llf_core.training.checkpoint_check import as_damaged
from llf_core.training.live_changes import active_at_checkpoint
from llf_core.training.trainer import RunTrainer, StreamedRows

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import TrainerCallback

    from llf_core.config import RunConfig
    from llf_core.data import Prepared
    from llf_core.models import DevicePlan
    from llf_core.runs import RunFolder
    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.base.loop import TrainingLoop
    from llf_core.training.callbacks import AnswerMetrics
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


def positions_by_set(config: RunConfig, data: Prepared) -> dict[str, list[int]]:
    """Positions of the evaluation examples of each data set that has some, by its name in metrics.

    Empty without `eval_on_each_dataset`.
    """
    if not config.evaluation.eval_on_each_dataset or no_sets_reason(config) or data.eval is None:
        return {}
    numbers = data.eval_counts[:, SET_COLUMN]
    found = {name: np.flatnonzero(numbers == number).tolist() for number, name in enumerate(evaluation_sets(config))}
    return {name: places for name, places in found.items() if places}


class ShardedArguments(TrainingArguments):  # type: ignore[misc]  # transformers ships no types
    """Arguments of a run whose model `llf_core.stages.base.ranks.shard` puts on the devices."""

    @property
    def place_model_on_device(self) -> bool:
        """False: the Trainer leaves the model where it was loaded, since a device may not hold all of it."""
        return False


def training_arguments(  # noqa: PLR0913 - what the run's folder and device decide
    config: RunConfig,
    plan: DevicePlan,
    folder: RunFolder,
    *,
    evaluates: bool,
    resume_from: str | None = None,
    max_steps: int | None = None,
    kind: type[TrainingArguments] = TrainingArguments,
    **more: Any,
) -> TrainingArguments:
    """Build the Trainer's arguments from the config's training section and the run folder.

    Features that this project has itself are disabled in the Trainer: checkpoint rotation (it waits until a
    checkpoint is complete), NEFTune, gradient checkpointing, and the NaN filter of the log, since a NaN must be
    visible. As with every `TrainingArguments`, accelerate's state of this process is reset.

    Args:
        folder: checkpoints are saved there, whatever `output_dir` is.
        resume_from: path of the checkpoint to resume from.
        max_steps: last step, if it was changed; None for that of the config.
    """
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    values: dict[str, Any] = {spec.key: config.get(spec.key) for spec in fields() if spec.key in known}
    values["report_to"] = list(values["report_to"])
    if max_steps is not None:
        values["max_steps"] = max_steps
    if not evaluates:
        values["eval_strategy"] = "no"
    values |= {
        "output_dir": str(folder.checkpoints),
        "resume_from_checkpoint": resume_from,
        "save_total_limit": None,
        "use_cpu": plan.device == "cpu",
        "bf16": plan.autocast == "bfloat16",
        "fp16": plan.autocast == "float16",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "prediction_loss_only": True,
        "dataloader_pin_memory": plan.device == "cuda" and values.get("dataloader_pin_memory", True),
        "push_to_hub": False,
    }
    if config.data.streaming:
        # Each rank reads the stream and takes its share. The Trainer's own way would split batches at their first
        # dimension, which flattened ones do not have, and loading processes would each read everything.
        values |= {"dataloader_num_workers": 0, "dataloader_persistent_workers": False}
        values |= {"dataloader_prefetch_factor": None}
        values["accelerator_config"] = (values["accelerator_config"] or {}) | {"dispatch_batches": False}
    # Checkpointing is enabled on the model before, where it is known which layers are frozen.
    values.pop("gradient_checkpointing", None)
    values.pop("gradient_checkpointing_kwargs", None)
    # The Trainer's NEFTune would scale its noise as if a flattened batch were one document.
    values.pop("neftune_noise_alpha", None)
    if optimizer_of(config).implementation:
        values.pop("optim")  # `TrainingLoop.create_optimizer` builds it
    if optimizer_of(config).layerwise(config):
        values["max_grad_norm"] = 0.0  # when a step ends, no gradients are left to clip
    if kind is TrainingArguments and shards_weights(config):
        kind = ShardedArguments
    arguments = kind(**(values | more))
    # A process trains on one GPU: `torch.nn.DataParallel`, which the Trainer would use for several, splits batches
    # anywhere and cannot split flattened ones. (The Trainer sets this attribute itself where a model spans GPUs.)
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001
    return arguments
