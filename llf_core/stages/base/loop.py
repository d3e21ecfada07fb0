"""What a run asks of its trainer, whoever makes the steps: that it can be told to end elsewhere, or to learn faster."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer

from llf_core.optimizers.optimizer import build_optimizer
from llf_core.runs.step_counters import step_of
from llf_core.stages.base.oom_retry import BatchSplitter

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from torch import Tensor, nn
    from torch.utils.data import DataLoader
    from transformers import TrainingArguments

    from llf_core.optimizers.optimizer import ParameterGroup
    from llf_core.stages.base.stage import Stage

logger = logging.getLogger(__name__)
ENDLESS = 1_000_000
"""Passes over the data that no run comes to."""


class TrainingLoop(Trainer):  # type: ignore[misc]  # transformers ships no types
    """A trainer whose schedule and last step can be changed between two steps.

    It may stand in front of another subclass of `transformers.Trainer`, as a base beside it.

    Attributes:
        stage: what is minimised.
        tell: called with a config key and a sentence where something is not as asked and the work goes on.
        seen: `[2]`, tokens read and learned from since the attempt began.
        pending_losses: example losses that are not written yet: of each step its number, and of each of its batches
            the numbers of the examples, their losses and their tokens, `[examples]` each.
        train_parts: how many parts a batch is computed in.
        eval_parts: the same in an evaluation.
        peak_rate: the learning rate that the schedule scales.
        planned_epochs: passes over the data that the config comes to.
    """

    optimizer: Any  # of torch, or accelerate's around it; None until it is made

    def __init__(self, *, stage: Stage, **kwargs: Any) -> None:
        """Takes what the trainer takes, and the stage."""
        super().__init__(**kwargs)
        self.stage = stage
        self.tell: Callable[[str, str], None] = partial(logger.warning, "%s: %s")
        self.seen = torch.zeros(2, dtype=torch.int64, device=self.args.device)
        self.pending_losses: list[tuple[int, list[tuple[Tensor, ...]]]] = []
        self.train_parts = BatchSplitter(lambda _part, _count: None)
        self.eval_parts = BatchSplitter(lambda _part, _count: None)
        self.peak_rate: float = self.args.learning_rate
        self.planned_epochs = 0
        self._schedule_options = dict(self.args.lr_scheduler_kwargs or {})

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of a plug-in where the config selects one; else the one that the Trainer builds by its name."""
        trained, config = self.model if model is None else model, self.stage.config
        if config is not None and self.optimizer is None:
            self.optimizer = build_optimizer(trained, config, self._parameter_groups(trained))
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def _parameter_groups(self, model: nn.Module) -> list[ParameterGroup]:
        """The trained parameters with weight decay, then those without (norms and biases), as the Trainer has them."""
        decayed = set(self.get_decay_parameter_names(model))
        trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
        return [
            {
                "params": [one for name, one in trained.items() if name in decayed],
                "weight_decay": self.args.weight_decay,
            },
            {"params": [one for name, one in trained.items() if name not in decayed], "weight_decay": 0.0},
        ]

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Create the Trainer's schedule; `warmup_stable_decay` decays over two thirds of the steps after the warm-up.

        Args:
            num_training_steps: optimizer steps of the whole run.
            optimizer: the optimizer to schedule; the trainer's own by default.

        Returns:
            The schedule, also set as `lr_scheduler`.
        """
        options = dict(self._schedule_options)
        if self.args.lr_scheduler_type == "warmup_stable_decay" and "num_decay_steps" not in options:
            after_warmup = num_training_steps - self.args.get_warmup_steps(num_training_steps)
            options["num_decay_steps"] = after_warmup - options.get("num_stable_steps", after_warmup // 3)
            self.args.lr_scheduler_kwargs = options
        schedule: torch.optim.lr_scheduler.LRScheduler = super().create_scheduler(num_training_steps, optimizer)
        return schedule

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader[Any]:
        """The Trainer's, with every held-out example: `dataloader_drop_last` is about those to train on."""
        drops, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            loader: DataLoader[Any] = super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = drops
        return loader

    def set_initial_training_values(self, args: TrainingArguments, dataloader: DataLoader[Any]) -> tuple[Any, ...]:
        """The Trainer's plan with passes without end: the last step ends a run, also one that is told to go on.

        A run that goes on from its last step, to write its result, makes none: it has no pass at all.

        Args:
            args: the training arguments.
            dataloader: the loader of the training set.

        Returns:
            The Trainer's tuple, with the number of passes replaced.
        """
        self.planned_epochs, *rest, max_steps = super().set_initial_training_values(args, dataloader)
        resumed = args.resume_from_checkpoint
        ended = resumed is not None and step_of(resumed) >= max_steps
        return (0 if ended else max(self.planned_epochs, ENDLESS), *rest, max_steps)

    def save_checkpoint(self) -> None:
        """Writes a checkpoint between two steps, as the Trainer does after one."""
        self._save_checkpoint(self.model_wrapped, trial=None)
        self.callback_handler.on_save(self.args, self.state, self.control)

    def set_learning_rate(self, rate: float) -> None:
        """Scales the schedule so that its peak is another one, from the next step on.

        Args:
            rate: what `learning_rate` would be in the config. Groups of parameters keep their proportions.
        """
        factor = rate / self.peak_rate if self.peak_rate else 0.0
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        for group in groups:
            for key in {"lr", "initial_lr"} & group.keys():
                group[key] = rate if group[key] == self.peak_rate else group[key] * factor
        schedule: Any = self.lr_scheduler
        if hasattr(schedule, "base_lrs"):
            schedule.base_lrs = [group["initial_lr"] for group in groups]
        self.peak_rate = rate
        self._follow_schedule()

    def planned_rates(self, points: int = 100) -> tuple[list[int], list[float]]:
        """The learning rates that the schedule plans from the next step to the last one.

        Args:
            points: how many steps at most; they stand evenly apart, the first and the last among them.

        Returns:
            Steps, and the rate that the log will tell of each; both are empty where a schedule has no plan, as one
            that follows the evaluation loss.
        """
        schedule: Any = self.lr_scheduler
        first, last = self.state.global_step + 1, self.state.max_steps
        if not hasattr(schedule, "lr_lambdas") or last < first:
            return [], []
        # as float32 steps beyond 16 million would be rounded, also to ones beyond the last
        places = torch.linspace(first, last, min(points, last - first + 1), dtype=torch.float64)
        steps = sorted({round(float(step)) for step in places})
        base, planned = schedule.base_lrs[0], schedule.lr_lambdas[0]
        return steps, [float(base * planned(step - 1)) for step in steps]  # the first step is made at `planned(0)`

    def end_at(self, total: int) -> None:
        """Has the run and its schedule end at another step; the schedule goes on as if it had been so planned.

        Args:
            total: the last step, beyond the present one.
        """
        kept: Any = self.lr_scheduler
        if hasattr(kept, "lr_lambdas"):
            # Made on an optimizer of its own, since a schedule sets the learning rates when it is made.
            self.lr_scheduler: Any = None  # so that one is made
            # Some schedules have a floor that they divide by the optimizer's own rate.
            spare = torch.optim.SGD([torch.zeros(1)], lr=self.optimizer.defaults.get("lr", self.args.learning_rate))
            fresh: Any = self.create_scheduler(total, spare)
            (planned,) = fresh.lr_lambdas
            kept.lr_lambdas = [planned] * len(kept.lr_lambdas)
            self.lr_scheduler = kept
            self._follow_schedule()
        self.state.max_steps = self.args.max_steps = total

    def _follow_schedule(self) -> None:
        """Sets the learning rates of the next step anew."""
        schedule: Any = self.lr_scheduler
        if not hasattr(schedule, "lr_lambdas"):
            return
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        terms = zip(groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
        for group, base, planned in terms:
            group["lr"] = base * planned(schedule.last_epoch)
        schedule._last_lr = [group["lr"] for group in groups]  # noqa: SLF001 - what it logs
