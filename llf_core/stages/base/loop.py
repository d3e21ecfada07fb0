"""The training loop of every run, whichever library makes the steps; a step that runs out of memory is split."""

from __future__ import annotations

import gc
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from transformers import Trainer, TrainerCallback

from llf_core.config.rules.conditions import shards_weights
from llf_core.config.sections import STRATEGIES
from llf_core.data.collate import split_batch
from llf_core.models.memory import is_out_of_memory
from llf_core.optimizers.optimizer import build_optimizer
from llf_core.runs.step_counters import step_of
from llf_core.stages.base.ranks import (
    from_all,
    is_main,
    is_sharded,
    keep_shards_apart,
    parameter_sum,
    shard,
    whole_on_main,
    world_size,
)
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from datasets import Dataset
    from torch import Tensor, nn
    from torch.utils.data import DataLoader
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from llf_core.optimizers.optimizer import ParameterGroup
    from llf_core.stages.base.stage import Stage

    Batch = Mapping[str, Any]

logger = logging.getLogger(__name__)


def inner_optimizer(optimizer: object) -> Any:
    """The optimizer inside accelerate's wrapper; itself where it is not wrapped, and None for None.

    The wrapper lacks attributes such as `gradient_norm` and `layerwise`, and has `eval` even where the optimizer has
    none.
    """
    return getattr(optimizer, "optimizer", optimizer)


ENDLESS = 1_000_000
"""More epochs than any run has."""


class ResultWeights(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Gives the model the weights of a result at the end of an epoch, before the Trainer may load the best ones."""

    def on_epoch_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - what the Trainer passes
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        optimizer: object = None,
        **_: object,
    ) -> None:
        """Switch an optimizer that trains other weights than it evaluates.

        Schedule-free optimizers do, and a run that ends here must end with the weights that were evaluated.
        """
        if hasattr(inner_optimizer(optimizer), "eval"):
            inner_optimizer(optimizer).eval()


class TrainingLoop(Trainer):  # type: ignore[misc]  # transformers ships no types
    """A trainer whose schedule and last step can be changed between two steps.

    It may be the first base of another subclass of `transformers.Trainer`.

    Attributes:
        tell: called with a config key and a sentence where the trainer deviates from the config and continues.
        seen: `[2]`, int64: tokens read and tokens trained on since the attempt began.
        pending_losses: example losses that are not written yet: of each step its number, and of each of its batches
            the numbers of the examples, their losses and their tokens, `[examples]` each.
        train_parts: in how many parts a training batch is computed.
        eval_parts: in how many parts an evaluation batch is computed.
        peak_rate: the learning rate that the schedule scales.
        waited: seconds that this rank has waited for the others since the last log, where that is measured.
        loss_units: what the loss of the last step was divided by, a scalar; None where a library does that.
        planned_epochs: passes over the data according to the config.
    """

    optimizer: Any  # of torch, or accelerate's around it; None until it is made

    def __init__(self, *, stage: Stage, **kwargs: Any) -> None:
        """Create the trainer. Arguments are the stage and those of `transformers.Trainer`."""
        super().__init__(**kwargs)
        self.add_callback(ResultWeights())
        self.stage = stage
        self.tell: Callable[[str, str], None] = partial(logger.warning, "%s: %s")
        self.seen = torch.zeros(2, dtype=torch.int64, device=self.args.device)
        self.pending_losses: list[tuple[int, list[tuple[Tensor, ...]]]] = []
        self.train_parts = BatchSplitter(lambda _part, _count: None)
        self.eval_parts = BatchSplitter(lambda _part, _count: None)
        self.peak_rate: float = self.args.learning_rate
        self.waited = 0.0
        self.loss_units: Tensor | None = None
        self.planned_epochs = 0
        self._logged_at = 0
        self._schedule_options = dict(self.args.lr_scheduler_kwargs or {})

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer of a plug-in if the config selects one; else the one that the Trainer builds by name.

        The Trainer knows only its own names, and calls this once, before its schedule is created.

        Args:
            model: the model under training; the trainer's own by default.

        Returns:
            The optimizer, also set as `optimizer`.
        """
        trained, config = self.model if model is None else model, self.stage.config
        sharded = config is not None and world_size() > 1 and shards_weights(config)
        if config is not None and sharded and self.optimizer is None:
            strategy = STRATEGIES[config.launch.strategy]
            copies = config.launch.num_nodes if strategy.copies_machines else 1
            shard(trained, self.args.device, keeps=strategy.keeps_gathered, copies=copies)
            self.is_distributed_loading_by_transformers = True  # accelerate wraps nothing around such a model
        if config is not None and self.optimizer is None:
            groups = self._parameter_groups(trained)
            self.optimizer = build_optimizer(trained, config, groups)
            if self.optimizer is None and any("lr" in group for group in groups):
                kind, options = self.get_optimizer_cls_and_kwargs(self.args, trained)
                self.optimizer = kind(groups, **options)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if sharded:
            keep_shards_apart(optimizer)
        return optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the Trainer's metrics; an optimizer that frees gradients in the backward pass has measured their norm.

        The Trainer itself finds no gradients left to measure after such a step.
        """
        norm = getattr(inner_optimizer(self.optimizer), "gradient_norm", None)
        if norm is not None and "grad_norm" in logs:
            logs["grad_norm"] = norm.item()
        if "loss" in logs and world_size() > 1:
            logs |= self._compare_ranks(logs)
        super().log(logs, start_time)

    def _compare_ranks(self, logs: Mapping[str, float]) -> dict[str, float]:
        """Metrics of the ranks: the slowest one, and one that trains other weights or divides its loss otherwise."""
        steps = max(1, self.state.global_step - self._logged_at)
        self._logged_at = self.state.global_step
        whole = [one for one in self.model.parameters() if one.requires_grad and not is_sharded(self.model)]
        units = None if self.loss_units is None else float(self.loss_units)
        # The largest sums of bits are longer than a float of JSON holds, so they are compared here.
        ranks = from_all((self.waited / steps, parameter_sum(whole), (units, logs.get("learning_rate"))))
        waited, sums, losses = zip(*ranks, strict=True)
        found = {f"waiting/{rank}": seconds for rank, seconds in enumerate(waited)} if any(waited) else {}
        self.waited = 0.0
        for name, values in (("other_weights", sums), ("other_loss", losses)):
            if others := [rank for rank, value in enumerate(values) if value != values[0]]:
                found[name] = others[0]
        return found

    def use_result_weights(self) -> None:
        """Give the model the weights of a result, where the optimizer trains others; the next step takes them back."""
        if self.optimizer is not None and hasattr(inner_optimizer(self.optimizer), "eval"):
            inner_optimizer(self.optimizer).eval()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as `transformers.Trainer` does, with the weights of a result.

        Schedule-free optimizers train other weights than those that are evaluated and saved.
        """
        self.use_result_weights()
        rows = getattr(self.model, "llf_new_rows", None)  # beside new rows PEFT saves the whole embedding
        adapter_alone = hasattr(self.model, "peft_config") and not (rows and rows.ids)
        with whole_on_main(self.model, trained=adapter_alone):
            if is_main() or not is_sharded(self.model):
                super().save_model(output_dir, _internal_call)

    def _parameter_groups(self, model: nn.Module) -> list[ParameterGroup]:
        """Trained parameters with weight decay, and those without (norms and biases), as the Trainer groups them."""
        decayed = set(self.get_decay_parameter_names(model))
        trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
        groups: list[ParameterGroup] = [
            {
                "params": [one for name, one in trained.items() if name in decayed],
                "weight_decay": self.args.weight_decay,
            },
            {"params": [one for name, one in trained.items() if name not in decayed], "weight_decay": 0.0},
        ]
        method = self.stage.method
        return groups if method is None else method.parameter_groups(model, groups)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Create the Trainer's schedule; `warmup_stable_decay` needs no number of decay steps.

        transformers requires that number. Without it the schedule decays over two thirds of the steps after the
        warm-up, or over those that `num_stable_steps` leaves. `polynomial` may warm up in all steps.

        Returns:
            The schedule, also set as `lr_scheduler`.

        Source:
            transformers' `get_scheduler`; warm-up, stable phase and decay: arXiv 2404.06395, section 4; a third of
            stable steps: LLaMA-Factory's `create_custom_scheduler`.
        """
        self.is_distributed_loading_by_transformers = False  # the model is prepared; gradients are summed in each batch
        options = dict(self._schedule_options)
        if self.args.lr_scheduler_type == "warmup_stable_decay" and "num_decay_steps" not in options:
            after_warmup = num_training_steps - self.args.get_warmup_steps(num_training_steps)
            options["num_decay_steps"] = after_warmup - options.get("num_stable_steps", after_warmup // 3)
            self.args.lr_scheduler_kwargs = options
        warmup = self.args.warmup_steps
        if self.args.lr_scheduler_type == "polynomial":  # it divides by the number of steps after the warm-up
            self.args.warmup_steps = self.args.get_warmup_steps(num_training_steps)
            num_training_steps = max(num_training_steps, self.args.warmup_steps + 1)
        try:
            schedule: torch.optim.lr_scheduler.LRScheduler = super().create_scheduler(num_training_steps, optimizer)
        finally:
            self.args.warmup_steps = warmup
        return schedule

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader[Any]:
        """Create the Trainer's evaluation loader with every held-out example.

        `dataloader_drop_last` applies to training only: an evaluation that leaves examples out is no mean over the set.
        """
        drops, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            loader: DataLoader[object] = super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = drops
        return loader

    def set_initial_training_values(self, args: TrainingArguments, dataloader: DataLoader[object]) -> tuple[Any, ...]:
        """Plan the run as the Trainer does, but without a last epoch.

        `max_steps` alone ends a run, so that it can be raised while the run goes on. A run that is resumed at its last
        step, to write its result, makes no step: it gets no epoch at all.
        """
        self.planned_epochs, *rest, max_steps = super().set_initial_training_values(args, dataloader)
        resumed = args.resume_from_checkpoint
        ended = resumed is not None and step_of(resumed) >= max_steps
        return (0 if ended else max(self.planned_epochs, ENDLESS), *rest, max_steps)

    def save_checkpoint(self) -> None:
        """Write a checkpoint between two steps, as the Trainer does after one, before an error ends the run."""
        self._save_checkpoint(self.model_wrapped, trial=None)
        self.callback_handler.on_save(self.args, self.state, self.control)

    def set_learning_rate(self, rate: float) -> None:
        """Change the learning rate of a live run, from the next step on.

        The schedule is scaled so that the rate is its peak, since a rate that is set alone would be overwritten by it.

        Args:
            rate: new value of `learning_rate` in the config. Parameter groups keep their proportions; after a rate of
                0, which leaves none, all groups have `rate`.
        """
        factor = rate / self.peak_rate if self.peak_rate else 0.0
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        for group in groups:
            for key in {"lr", "initial_lr"} & group.keys():
                group[key] = rate if group[key] == self.peak_rate else group[key] * factor
        schedule: Any = self.lr_scheduler
        if hasattr(schedule, "base_lrs"):
            schedule.base_lrs = [group["initial_lr"] for group in groups]
        elif hasattr(schedule, "_last_lr"):
            schedule._last_lr = [group["lr"] for group in groups]  # noqa: SLF001 - what it saves and restores
        self.peak_rate = rate
        self._follow_schedule()

    def planned_rates(self, points: int = 100) -> tuple[list[int], list[float]]:
        """Learning rates planned from the next step to the last one, which the monitor charts.

        They are those of the first parameter group.

        Args:
            points: maximum number of steps, at least 2; they are spaced evenly and include the first and the last.

        Returns:
            Steps, and the rate that each will log. Both are empty after the last step, and where a schedule has no
            plan, such as one that follows the evaluation loss.
        """
        schedule: Any = self.lr_scheduler
        first, last = self.state.global_step + 1, self.state.max_steps
        if not hasattr(schedule, "lr_lambdas") or last < first:
            return [], []
        # float32 would round steps beyond 16 million, even to ones after the last
        places = torch.linspace(first, last, min(points, last - first + 1), dtype=torch.float64)
        steps = sorted({round(float(step)) for step in places})
        base, planned = schedule.base_lrs[0], schedule.lr_lambdas[0]
        # The first step is made at `planned(0)`. With float16 a step whose gradients overflow does not move a schedule.
        skipped = self.state.global_step - schedule.last_epoch
        return steps, [float(base * planned(step - 1 - skipped)) for step in steps]

    def end_at(self, total: int) -> None:
        """Change the last step of a live run; its schedule continues as if that step had been planned from the start.

        A run may thus be shortened or continued without losing the state of its optimizer. A schedule without a plan,
        such as one that follows the evaluation loss, stays as it is.

        Args:
            total: the new last step, after the present one.
        """
        kept: Any = self.lr_scheduler
        if hasattr(kept, "lr_lambdas"):
            # Created on a spare optimizer, since a schedule sets the learning rates when it is created.
            self.lr_scheduler: Any = None  # the Trainer creates a schedule only where there is none
            # Some schedules divide their minimum rate by the optimizer's own rate.
            spare = torch.optim.SGD([torch.zeros(1)], lr=self.optimizer.defaults.get("lr", self.args.learning_rate))
            fresh: Any = self.create_scheduler(total, spare)
            self.lr_scheduler = kept
            (planned,) = fresh.lr_lambdas
            kept.lr_lambdas = [planned] * len(kept.lr_lambdas)
            self._follow_schedule()
        self.state.max_steps = self.args.max_steps = total

    def _follow_schedule(self) -> None:
        """Set the learning rates of the next step by the schedule."""
        schedule: Any = self.lr_scheduler
        if not hasattr(schedule, "lr_lambdas"):
            return
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        terms = zip(groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
        for group, base, planned in terms:
            group["lr"] = base * planned(schedule.last_epoch)
        schedule._last_lr = [group["lr"] for group in groups]  # noqa: SLF001 - the Trainer logs it


Result = TypeVar("Result")


class DoesNotFitError(UserError):
    """Out of memory on the smallest part of a batch, a single document."""


def empty_caches() -> None:
    """Free cached memory of the process and its device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


class RNGState:
    """RNG state of the CPU and the device, so that a step that is computed again draws the same numbers."""

    def __init__(self, device: torch.device) -> None:
        """Save the current state."""
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        self._mps = torch.mps.get_rng_state() if device.type == "mps" else None
        self._device = device

    def restore(self) -> None:
        """Restore the saved state."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)
        if self._mps is not None:
            torch.mps.set_rng_state(self._mps)


class BatchSplitter:
    """Computes each batch in a number of parts, which doubles whenever memory runs out.

    Attributes:
        count: parts of a batch, a power of two; a batch of fewer documents has one part a document.
    """

    def __init__(self, tell: Callable[[Batch, int], None]) -> None:
        """Begin with whole batches.

        Args:
            tell: called with the part that did not fit and the new count, before the retry. Raises `DoesNotFitError`
                if the part cannot be halved.
        """
        self.count = 1
        self._tell = tell

    def run(
        self,
        batches: Sequence[Batch],
        compute: Callable[[dict[str, Any], bool], Result],
        *,
        undo: Callable[[], Sequence[Batch]],
    ) -> list[Result]:
        """Compute batches part by part; after out of memory, all of them again in twice as many parts.

        Args:
            compute: computes one part; its second argument is whether that is the last one.
            undo: reverts all that `compute` has done; returns the batches to compute again, earlier ones included.
        """
        while True:
            results: list[Result] = []
            part = batches[0]
            try:
                parts = [own for batch in batches for own in split_batch(batch, self.count)]
                for part in parts:
                    results.append(compute(part, part is parts[-1]))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                return results
            # Outside the handler: until the error is gone, its traceback keeps the failed graph in memory.
            results.clear()
            batches = undo()
            empty_caches()
            self._tell(part, self.count * 2)
            self.count *= 2
