"""The trainer of every `LossStage`. It overrides public methods of `transformers.Trainer` only; a test pins them."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.utils.data import BatchSampler, Subset

from llf_core.config.rules.evaluation import ACCURACY, of_set
from llf_core.data.collate import document_count, has_media, token_count, trained_token_count
from llf_core.metrics.interval import ratio_interval, share_interval
from llf_core.runs.charts import HIGH, LOW
from llf_core.stages.base.loop import BatchSplitter, RNGState, TrainingLoop, inner_optimizer
from llf_core.stages.base.ranks import (
    average_gradients,
    from_all,
    from_main,
    is_sharded,
    largest_of_ranks,
    sum_over_ranks,
    whole_on_main,
)
from llf_core.stages.token_accuracy import TokenAccuracy
from llf_core.training.memory_plan import (
    evaluation_retry_message,
    layerwise_error,
    media_batch_error,
    multi_process_error,
    single_example_error,
    training_retry_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor, nn
    from torch.utils.data import DataLoader
    from transformers.trainer_utils import EvalLoopOutput

    from llf_core.data.streaming import Stream
    from llf_core.metrics.interval import Interval
    from llf_core.stages.base.stage import Batch, LossStage
    from llf_core.training.callbacks import AnswerMetrics


class StreamedRows(torch.utils.data.IterableDataset[dict[str, Any]]):
    """A stream of rows as a torch iterable dataset: no length, read in order by one process."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._stream)


class RunTrainer(TrainingLoop):
    """Minimizes a stage's loss as one mean over gradient accumulation, ranks and evaluation batches.

    Each optimizer step divides the summed loss of its micro-batches by the number of units (tokens, pairs, answers)
    in them, so the result does not depend on the split into micro-batches, unless the stage is `batch_dependent`.

    Attributes:
        answer_metrics: metrics of generated answers, computed at each evaluation.
        evaluation_sets: positions of the evaluation examples of each data set, by its name in metrics. Each is
            evaluated by itself, and all together.
        counts_accuracy: whether evaluations measure the accuracy of tokens.
        split_told: why this rank repeats its step in smaller parts, until it tells the others.
    """

    stage: LossStage
    eval_dataset: Any
    answer_metrics: AnswerMetrics | None = None
    evaluation_sets: Mapping[str, Sequence[int]] = MappingProxyType({})
    counts_accuracy: bool = False
    split_told: str = ""

    # compute_loss divides by the count of the whole step, so the Trainer must not divide again.
    loss_is_scaled_for_ga = True

    def __init__(self, *, stage: LossStage, **kwargs: Any) -> None:
        super().__init__(stage=stage, **kwargs)
        self.label_names = list(stage.label_names)
        self.train_parts = BatchSplitter(partial(_train_in_smaller_parts, self))
        self.eval_parts = BatchSplitter(partial(_evaluate_in_smaller_parts, self))
        self._evaluated = torch.zeros(2, dtype=torch.float64)
        # Of the current optimizer step: tokens read and trained on by all ranks, batches so far, the losses of their
        # parts, the RNG state at its start.
        self._tokens = torch.zeros_like(self.seen)
        self._batches: list[Batch] = []
        self._losses: list[Tensor] = []
        self._ends_void = False  # nothing is left for this rank in the last of the step's batches
        self._pending_losses: list[tuple[Tensor, ...]] = []
        # Of an evaluation: loss and units of the examples so far, and of those of the batch that is computed.
        self._examples: list[Tensor] = []
        self._recorded: list[Tensor] = []
        self._randomness = RNGState(self.args.device)
        self._agreed_parts = 1  # of a batch, on all ranks

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor | None]:
        """Micro-batches of one optimizer step, and their loss units on all ranks, a scalar; None without batches."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        self._ends_void = is_void(self.accelerator.gradient_state.active_dataloader)
        batches = self.stage.batches(batches)
        counts = [
            torch.stack([token_count(batch), trained_token_count(batch), self._count(batch)]) for batch in batches
        ]
        if self._ends_void:
            counts[-1] = torch.zeros_like(counts[-1])
        own = torch.stack(counts).sum(0).to(device)
        began = time.perf_counter()
        whole = sum_over_ranks(own)
        self.waited += time.perf_counter() - began
        self._tokens, self.loss_units = whole[:2], whole[2]
        return batches, whole[2]

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Forward and backward pass of a batch, as one micro-batch or, after out of memory, as several.

        If memory runs out, the gradients of the optimizer step are dropped, and its batches are recomputed in parts
        half as large; the smaller size is kept. The RNG state is restored to the start of the step, so the step
        equals that of a run with small parts from there on.

        Returns:
            A scalar: at the last batch of an optimizer step the loss of the whole step, 0 before, since earlier
                batches may be recomputed. The Trainer adds them up.
        """
        micro_step = super().training_step
        if not self._batches:
            self._randomness = RNGState(self.args.device)
        self._batches.append(inputs)
        step_ends = len(self._batches) >= self.current_gradient_accumulation_steps
        if num_items_in_batch is None:
            num_items_in_batch = self._count(inputs)

        alone = self.averages_at_the_end

        def make(part: Batch, last: bool) -> Tensor:
            # Gradients are summed over ranks once a step; the Trainer takes care of the batches before the last.
            quiet = nullcontext() if last and not alone else self.accelerator.no_sync(model)
            with quiet:
                loss: Tensor = micro_step(model, part, num_items_in_batch)
            return loss

        def undo() -> list[Batch]:
            model.zero_grad()
            self._losses.clear()
            self._pending_losses.clear()
            self.stage.rollback()
            self._randomness.restore()
            return self._batches

        self._losses += self.train_parts.run([inputs], make, undo=undo)
        if not step_ends:
            return torch.zeros_like(self._losses[0])
        loss = torch.stack(self._losses).sum()
        if alone:
            self._average_gradients(model)
        self.stage.commit()
        if (method := self.stage.method) is not None:
            scaler = self.accelerator.scaler
            method.after_backward(1.0 if scaler is None else float(scaler.get_scale()))
        if self._pending_losses:
            self.pending_losses.append((self.state.global_step + 1, self._pending_losses))
        self._batches, self._losses, self._pending_losses = [], [], []
        self.seen += self._tokens
        return loss

    @property
    def averages_at_the_end(self) -> bool:
        """Whether this rank computes its step without the others, so that it can repeat it in smaller parts.

        DDP instead exchanges gradients during the backward pass, which hides that time for many gradients on a GPU,
        but leaves the others waiting after out of memory.
        """
        if self.accelerator.num_processes == 1 or self.stage.batch_dependent or is_sharded(self.model):
            return False
        return self.args.device.type == "cpu" or hasattr(self.model, "peft_config")

    def _average_gradients(self, model: nn.Module) -> None:
        """Average the gradients of the ranks, and agree on the number of parts of a batch."""
        trained = [one for one in model.parameters() if one.requires_grad]
        if self.args.device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        parts, *present = largest_of_ranks([self.train_parts.count, *(one.grad is not None for one in trained)])
        self.waited += time.perf_counter() - began
        average_gradients(trained, present)
        if parts > self._agreed_parts:
            self._agreed_parts = self.train_parts.count = parts
            said = next(filter(None, from_all(self.split_told)), "")  # nothing where a resumed run begins with them
            self.split_told = ""
            if said:
                self.tell("per_device_train_batch_size", said)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Divide the stage's summed loss of a micro-batch by the loss units of the whole optimizer step on all ranks.

        Returns:
            A float32 scalar; with `return_outputs`, set by the Trainer in evaluation, also an empty dict.
        """
        count = self._count(inputs)
        if model.training:
            void = self._ends_void and len(self._batches) >= self.current_gradient_accumulation_steps
            note = partial(self._note, inputs["numbers"]) if "numbers" in inputs and not void else None
            with self.stage.void_batch() if void else nullcontext():
                total = self.stage.loss_sum(model, inputs, self.args.label_smoothing_factor, note)
                # Gradients are averaged over ranks: the factor turns that average back into a sum.
                units = count if num_items_in_batch is None else num_items_in_batch
                tokens = token_count(inputs) if num_items_in_batch is None else self._tokens[0]
                loss = self._with_extra_losses(total * self.accelerator.num_processes / units, tokens)
            if void:  # its gradients are zeros, for which the other ranks wait
                loss = 0 * loss
        elif is_void(self.accelerator.gradient_state.active_dataloader):
            loss = torch.zeros((), device=count.device)
            if self.stage.batch_dependent or is_sharded(self.model):  # the other ranks wait for its sums or shards
                with self.stage.void_batch():
                    self.stage.loss_sum(model, inputs)
        else:
            sums = self.eval_parts.run(
                [inputs],
                lambda part, _: self.stage.loss_sum(model, part, 0.0, self._record),
                undo=self._measure_again(inputs),
            )
            self.stage.commit()
            self._keep_examples(inputs)
            total = torch.stack(sums).sum()
            loss = total / count
            self._evaluated += torch.stack([total.detach(), count]).cpu().double()  # MPS has no float64
        return (loss, {}) if return_outputs else loss

    def _with_extra_losses(self, loss: Tensor, tokens: Tensor) -> Tensor:
        """Add the gradient of the modifiers' losses, not their value, so that the logged scalar loss is the stage's."""
        for modifier in self.stage.modifiers:
            extra = modifier.extra_loss()
            if extra is None:
                continue
            share = extra.total * self.accelerator.num_processes / tokens.to(loss.device)
            loss = loss + (share - share.detach())
            for name, (total, number) in extra.measures.items():
                self.stage.measures.add(name, total, number)
        return loss

    def _count(self, batch: Batch) -> Tensor:
        count: Tensor | None = self.stage.count(batch)
        return trained_token_count(batch) if count is None else count

    def _record(self, losses: Tensor, tokens: Tensor) -> None:
        self._recorded.append(torch.stack([losses, tokens.to(losses.dtype)], dim=1))

    def _keep_examples(self, batch: Batch) -> None:
        """Keep the losses of the examples of an evaluated batch, with their number of loss units."""
        if not self._recorded:
            return
        rows, self._recorded = torch.cat(self._recorded), []
        if self.stage.count(batch) is not None:  # pairs or completions, not tokens
            rows[:, 1] = 1
        self._examples.append(rows)

    def _measure_again(self, inputs: Batch) -> Callable[[], list[Batch]]:
        def undo() -> list[Batch]:
            self.stage.rollback()
            self._recorded.clear()
            return [inputs]

        return undo

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the Trainer's metrics and, with a `loss`, the means of the stage's own; all ranks must call it."""
        if "loss" in logs:
            logs |= self._sums().means(self.stage.differences)
        super().log(logs, start_time)

    def _sums(self) -> EvaluationSums:
        """Sums of all ranks since the last call: losses of evaluations, metrics, correct tokens."""
        accuracy = self.stage.accuracy
        total, count = self._evaluated.tolist()
        self._evaluated.zero_()
        examples = torch.cat(self._examples).tolist() if self._examples else []
        self._examples.clear()
        correct = [] if accuracy is None else accuracy.take()
        return together(gather_object([EvaluationSums((total, count), self.stage.measures.take(), correct, examples)]))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as `transformers.Trainer` does.

        A metric of answers that could not be computed and decides which checkpoint is best is NaN, which is never
        the best; nothing logs it, and early stopping does not count it.
        """
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        best = (self.args.metric_for_best_model or "").removeprefix("eval_")
        if self.answer_metrics is not None and best in self.answer_metrics.directions:
            metrics.setdefault(f"eval_{best}", math.nan)
        return metrics

    def _note(self, numbers: Tensor, losses: Tensor, tokens: Tensor) -> None:
        self._pending_losses.append((numbers, losses, tokens))

    def evaluation_loop(
        self, dataloader: DataLoader[object], *args: object, metric_key_prefix: str = "eval", **kwargs: object
    ) -> EvalLoopOutput:
        """Run the Trainer's evaluation loop, with the loss as a mean over tokens (pairs, completions) of all batches.

        The Trainer's mean of batch means depends on the batch size. With `evaluation_sets` the loop runs once for
        each data set.

        Returns:
            The Trainer's result, with `<prefix>_loss` replaced, and the stage's metrics, the accuracy of tokens and
                the metrics of answers added; those of a single data set are `<prefix>_<data set>_loss` and so on.
        """
        loop = partial(super().evaluation_loop, metric_key_prefix=metric_key_prefix)
        self.stage.commit()
        trained = self.stage.measures.take()  # metrics of the training steps since the last log
        self._evaluated.zero_()
        self.stage.accuracy = TokenAccuracy() if self.counts_accuracy else None
        sums: dict[str, EvaluationSums] = {}
        samples = 0
        try:
            for name, loader in self._loaders(dataloader):
                output = loop(loader, *args, **kwargs)
                sums[name] = self._sums()
                samples += output.num_samples
        finally:
            self.stage.accuracy = None
        whole, differences = together(list(sums.values())), self.stage.differences
        found = {of_set(name, metric): value for name, one in sums.items() if name
                 for metric, value in one.metrics(differences).items()}  # fmt: skip
        found |= whole.metrics(differences)
        for name, (measured, of) in trained.items():
            self.stage.measures.add(name, measured, of)
        self.stage.commit()
        self.stage.evaluated(whole.means(differences))
        if self.answer_metrics is not None:
            self.use_result_weights()
            with whole_on_main(self.model):
                found |= from_main(lambda: self.answer_metrics.measure(self.state.global_step))  # type: ignore[union-attr]
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in found.items()})
        return output._replace(num_samples=samples)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Create the Trainer's loader of the training set, with this rank's share of the batches."""
        loader: DataLoader[Any] = super().get_train_dataloader()
        share_batches(loader, self.args.process_index, self.args.world_size)
        return loader

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Create the loader of held-out examples, see `TrainingLoop`, with this rank's share of the batches."""
        loader: DataLoader[Any] = super().get_eval_dataloader(eval_dataset)
        share_batches(loader, self.args.process_index, self.args.world_size)
        return loader

    def _loaders(self, whole: DataLoader[Any]) -> Iterator[tuple[str, DataLoader[Any]]]:
        """Name and loader of each data set's evaluation examples; without any, one loader of all and no name."""
        if not self.evaluation_sets:
            yield "", whole
        for name, places in self.evaluation_sets.items():
            # The Trainer keeps a loader of each name, with its worker processes if they persist.
            every: Any = self.eval_dataset
            self.eval_dataset = {name: Subset(every, places)}
            try:
                loader = self.get_eval_dataloader(name)
            finally:
                self.eval_dataset = every
            yield name, loader


def _train_in_smaller_parts(trainer: RunTrainer, part: Batch, count: int) -> None:
    """Record that training continues with `count` parts per batch, or raise the error why it cannot."""
    size, accumulation = trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps
    batch_dependent = trainer.stage.batch_dependent
    checkpointed = any(getattr(module, "gradient_checkpointing", False) for module in trainer.model.modules())
    if getattr(inner_optimizer(trainer.optimizer), "layerwise", False):
        raise layerwise_error(part, step=trainer.state.global_step + 1, size=size, checkpointed=checkpointed)
    several = trainer.accelerator.num_processes > 1
    if several and not trainer.averages_at_the_end:
        raise multi_process_error(
            part, batch_dependent=batch_dependent, size=size, accumulation=accumulation, checkpointed=checkpointed
        )
    if has_media(part) and document_count(part) > 1:
        raise media_batch_error(part, size=size, accumulation=accumulation, checkpointed=checkpointed)
    if document_count(part) == 1:
        known = () if isinstance(trainer.train_dataset, StreamedRows) else trainer.train_dataset
        raise single_example_error(part, known, checkpointed=checkpointed)
    step = trainer.state.global_step + 1
    said = training_retry_message(
        part, count, step=step, size=size, accumulation=accumulation, batch_dependent=batch_dependent
    )
    if several:
        trainer.split_told = said
    else:
        trainer.tell("per_device_train_batch_size", said)


def _evaluate_in_smaller_parts(trainer: RunTrainer, part: Batch, count: int) -> None:
    """`_train_in_smaller_parts` for an evaluation: processes wait for each other only if examples are compared."""
    several = trainer.accelerator.num_processes > 1
    if is_sharded(trainer.model) or (trainer.stage.batch_dependent and several):
        size = trainer.args.per_device_eval_batch_size
        dependent = trainer.stage.batch_dependent
        raise multi_process_error(part, batch_dependent=dependent, size=size, accumulation=1, checkpointed=True)
    if has_media(part) and document_count(part) > 1:
        evaluated = trainer.args.per_device_eval_batch_size
        raise media_batch_error(part, size=evaluated, accumulation=1, checkpointed=True)
    if document_count(part) == 1:
        raise single_example_error(part, trainer.eval_dataset, checkpointed=True)  # an evaluation keeps no activations
    size = trainer.args.per_device_eval_batch_size
    trainer.tell(
        "per_device_eval_batch_size",
        evaluation_retry_message(part, count, size=size, batch_dependent=trainer.stage.batch_dependent),
    )


@dataclass(frozen=True)
class EvaluationSums:
    """Sums over the examples of one or several data sets, on all ranks.

    Attributes:
        loss: sum of the losses, and number of tokens (pairs, completions).
        measures: by name, sum and number of the values of a stage's metric.
        accuracy: of each example its correct tokens and its tokens in the loss; empty without `compute_accuracy`.
        examples: of each example the sum of its losses, and the number of its tokens in the loss (1 of a pair or a
            completion); empty if the stage records none.
    """

    loss: tuple[float, float]
    measures: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    accuracy: Sequence[Sequence[float]] = ()
    examples: Sequence[Sequence[float]] = ()

    def means(self, differences: Mapping[str, tuple[str, str]]) -> dict[str, float]:
        """Means of the stage's metrics by name, without undefined ones, and the differences of two of them."""
        means = {name: total / count for name, (total, count) in self.measures.items() if count}
        for name, parts in differences.items():
            one, other = (means.get(part) for part in parts)
            if one is not None and other is not None:
                means[name] = one - other
        return means

    def metrics(self, differences: Mapping[str, tuple[str, str]]) -> dict[str, float]:
        """All metrics by name: `loss`, the stage's, and `accuracy` (0 to 1), loss and accuracy with 95 % intervals.

        The bounds of an interval are `name/low` and `name/high`, see `llf_core.metrics.interval`; they are
        left out if too few examples were recorded, and for a loss that is not finite or not of the recorded
        examples. A stage's own `loss`, such as a mean over the completions that could be scored, replaces the other.
        """
        found = {"loss": self.loss[0] / self.loss[1]} | self.means(differences)
        accuracy = share_interval(np.array(self.accuracy, float))
        if accuracy.value is not None:
            found |= {ACCURACY: accuracy.value} | _bounds(ACCURACY, accuracy)
        return found | ({} if "loss" in self.measures else self._loss_bounds())

    def _loss_bounds(self) -> dict[str, float]:
        """Interval of the mean loss, if it is the mean over the recorded examples."""
        units = sum(count for _, count in self.examples)
        if not self.examples or units != self.loss[1] or not math.isfinite(self.loss[0]):
            return {}
        return _bounds("loss", ratio_interval(np.array(self.examples, float)))


def _bounds(name: str, found: Interval) -> dict[str, float]:
    values = {name + LOW: found.low, name + HIGH: found.high}
    return {name: value for name, value in values.items() if value is not None}


def together(parts: Sequence[EvaluationSums]) -> EvaluationSums:
    """Sums over the examples of several (at least one) data sets or ranks."""
    measures: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (total, count) in part.measures.items():
            before = measures.get(name, (0.0, 0.0))
            measures[name] = (before[0] + total, before[1] + count)
    totals, counts = zip(*(part.loss for part in parts), strict=True)
    return EvaluationSums(
        (sum(totals), sum(counts)),
        measures,
        [one for part in parts for one in part.accuracy],
        [one for part in parts for one in part.examples],
    )


class RankBatches(BatchSampler):
    """A rank's share of the batches of a sampler, in the order in which one process would read them.

    accelerate fills the last batches with examples from the beginning, which would count twice. Here the last batch
    of a rank is short, or, if nothing is left for it, one example that `is_void` excludes from the loss.

    ```
    7 examples, batches of 2, 2 ranks:  rank 0 [0 1] [4 5]   rank 1 [2 3] [6]
    5 examples, batches of 2, 2 ranks:  rank 0 [0 1] [4]     rank 1 [2 3] [4], which is void
    ```
    """

    def __init__(self, batches: BatchSampler, rank: int, ranks: int) -> None:
        self._batches, self._rank, self._ranks = batches, rank, ranks
        # accelerate reads these, and sets the epoch of the sampler.
        self.sampler, self.batch_size, self.drop_last = batches.sampler, batches.batch_size, batches.drop_last

    def __iter__(self) -> Iterator[list[int]]:
        batches = iter(self._batches)
        while group := list(islice(batches, self._ranks)):
            whole = list(chain.from_iterable(group))
            own = whole[self._rank * self.batch_size : (self._rank + 1) * self.batch_size]
            if len(whole) == self.batch_size * self._ranks or not self.drop_last:
                yield own or whole[:1]

    def __len__(self) -> int:
        return len(self._batches) // self._ranks if self.drop_last else -(-len(self._batches) // self._ranks)

    @property
    def last_is_void(self) -> bool:
        """Whether nothing is left for this rank in the last batch."""
        left = len(self.sampler) % (self.batch_size * self._ranks)  # type: ignore[arg-type]
        return not self.drop_last and 0 < left <= self._rank * self.batch_size


def share_batches(loader: DataLoader[Any], rank: int, ranks: int) -> None:
    """Replace accelerate's shares of the batches of a prepared loader by `RankBatches`; streams have none."""
    shares: Any = loader.batch_sampler
    if hasattr(shares, "num_processes") and ranks > 1:
        shares.batch_sampler = RankBatches(shares.batch_sampler, rank, ranks)
        shares.num_processes, shares.process_index, shares.even_batches = 1, 0, False


def is_void(loader: Any) -> bool:
    """Whether the last batch of a prepared loader is void for this rank, see `RankBatches`."""
    sampler = getattr(loader, "batch_sampler", None)
    while sampler is not None and not isinstance(sampler, RankBatches):
        sampler = getattr(sampler, "batch_sampler", None)
    return sampler is not None and bool(loader.end_of_dataloader) and sampler.last_is_void
