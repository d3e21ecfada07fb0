"""Trains short branches of a config from step 0, one for each learning rate, with the run's own trainer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import TrainerCallback, set_seed

from llf_core.data import PackedRows
from llf_core.data.streaming import Stream
from llf_core.models import ModelError, plan_device
from llf_core.runs import RunWriter, create_run
from llf_core.stages.base.stage import make_stage
from llf_core.training.learning_rate_rule import Branch, has_diverged
from llf_core.training.load_context import load_context
from llf_core.training.make_trainer import make_trainer
from llf_core.training.measure import SETTINGS
from llf_core.training.memory_plan import decide_checkpointing
from llf_core.training.metrics_callback import ROUNDING, MetricsCallback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from transformers import TrainerControl, TrainerState, TrainingArguments

    from llf_core.config import RunConfig
    from llf_core.data import Prepared
    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.base.loop import TrainingLoop
    from llf_core.stages.base.stage import LossStage, TrainerStage

WARMUP = 10
"""Share of the steps that warm up (1/10): Adam's first steps are as large as the learning rate allows."""


def train_branches(
    config: RunConfig,
    home: Path,
    rates: Sequence[float],
    steps: int,
    on_step: Callable[[float, int], object],
) -> Iterator[Branch]:
    """Train a branch for each learning rate (at least one), all from the same weights and on the same batches.

    The model is loaded once. A first branch with the rate 0 gives the losses of the untrained model. Trainer, loss,
    optimizer and method are those of a run; the rate is constant after a warm-up of a tenth of the steps, a choice
    of this project. The process's random generators are seeded before each branch.

    Args:
        config: its learning rate decides only the proportions between groups of parameters.
        home: an empty folder for the trainer's files, which the caller removes.
        on_step: called after each step with the rate (0 for the untrained model) and the number of steps made.
    """
    short = config.replace(
        **SETTINGS
        | {
            "max_steps": steps,
            "warmup_steps": -(-steps // WARMUP),
            "lr_scheduler_type": "constant_with_warmup",
            "lr_scheduler_kwargs": None,
            "learning_rate": config.optimizer.learning_rate or rates[0],
            "train_sampling_strategy": "random",
            "report_to": ["none"],
        }
    )
    folder = create_run(short.yaml(defaults=True), "learning-rate", home)
    writer = RunWriter(folder, 1)
    context = load_context(folder, short, writer, plan_device(short))
    context = dataclasses.replace(context, data=_few_examples(context.data, short, steps))
    stage = make_stage(short, context)
    decide_checkpointing(context, stage.auxiliary_models(), resumes=False)
    start = _Start(context, stage)
    untrained = _losses(context, stage, 0.0, None, on_step)
    if has_diverged(untrained, untrained):
        raise ModelError(f"The loss of {context.source.name} is not finite before its first step.")
    for rate in rates:
        start.restore()
        losses = _losses(context, stage, rate, untrained, on_step)
        if not np.isclose(losses[0], untrained[0], rtol=ROUNDING, atol=ROUNDING):
            raise ModelError(
                f"The weights could not be set back after a branch: the first loss is {losses[0]:.4f}, and was "
                f"{untrained[0]:.4f}. Learning rates cannot be compared with finetuning_type "
                f"{short.get('finetuning_type')} and these settings. Compare short runs instead (llf.sweep)."
            )
        yield Branch(rate, tuple(losses), tuple(untrained))


def _losses(
    context: TrainingContext,
    stage: LossStage | TrainerStage,
    rate: float,
    untrained: Sequence[float] | None,
    on_step: Callable[[float, int], object],
) -> list[float]:
    trainer = make_trainer(context, stage, MetricsCallback(context.folder, context.writer, keep=1))
    branch = _BranchCallback(trainer, rate, untrained, on_step)
    trainer.add_callback(branch)
    set_seed(context.config.training.seed)
    trainer.train()  # accelerate wraps the model's forward once; the next trainer finds it wrapped
    if len(branch.losses) < context.config.training.max_steps and untrained is None:
        raise ModelError(
            f"Only {len(branch.losses)} of {context.config.training.max_steps} steps could be made. Expected more data."
        )
    return branch.losses


class _BranchCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    def __init__(
        self,
        trainer: TrainingLoop,
        rate: float,
        untrained: Sequence[float] | None,
        on_step: Callable[[float, int], object],
    ) -> None:
        self.losses: list[float] = []
        self._trainer = trainer
        self._rate = rate
        self._untrained = untrained
        self._on_step = on_step

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Set the rate as a live change of a run does, so that groups of parameters keep their proportions."""
        del args, state, control
        self._trainer.set_learning_rate(self._rate)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Record the loss of a step; stop the branch if it has diverged."""
        del args
        if "loss" not in (logs or {}):
            return
        self.losses.append(float((logs or {})["loss"]))
        self._on_step(self._rate, state.global_step)
        if self._untrained is not None and has_diverged(self.losses, self._untrained):
            control.should_training_stop = True


class _Start:
    """Trained weights, buffers and states of method and stage before the first step, in main memory."""

    def __init__(self, context: TrainingContext, stage: LossStage | TrainerStage) -> None:
        self._model, self._method, self._stage = context.model, context.method, stage
        self._trained = {
            name: one.detach().to("cpu", copy=True) for name, one in self._model.named_parameters() if one.requires_grad
        }
        self._buffers = {name: one.detach().to("cpu", copy=True) for name, one in self._model.named_buffers()}
        self._of_method = {} if self._method is None else self._method.state()
        self._of_method = {name: one.clone() for name, one in self._of_method.items()}
        self._of_stage = stage.state()

    def restore(self) -> None:
        """Restore everything, and drop the gradients."""
        with torch.no_grad():
            for name, one in self._model.named_parameters():
                one.grad = None
                if name in self._trained:
                    one.requires_grad = True
                    one.copy_(self._trained[name])
            for name, one in self._model.named_buffers():
                one.copy_(self._buffers[name])
        if self._method is not None and self._of_method:
            self._method.restore({name: one.clone() for name, one in self._of_method.items()})
        self._stage.restore(self._of_stage)


def _few_examples(data: Prepared, config: RunConfig, steps: int) -> Prepared:
    """Data with as many random examples as the steps of a branch need; packed and streamed rows unchanged."""
    if isinstance(data.train, PackedRows | Stream):
        return data
    wanted = steps * config.training.per_device_train_batch_size * config.training.gradient_accumulation_steps
    order = np.random.default_rng(config.training.seed).permutation(len(data.train))
    return dataclasses.replace(data, train=data.train.select(order[:wanted].tolist()))
