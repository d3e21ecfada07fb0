"""The one subclass of `transformers.Trainer`. It overrides public methods only; a test pins their signatures."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from llf_core.data.batch_split import document_count, has_media, learned_count, token_count
from llf_core.stages.base.all_reduce import sum_over_ranks
from llf_core.stages.base.loop import TrainingLoop
from llf_core.stages.base.oom_retry import BatchSplitter, RNGState
from llf_core.training.oom_messages import (
    evaluation_goes_on,
    one_example,
    several_processes,
    training_goes_on,
    with_media,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn
    from transformers.trainer_utils import EvalLoopOutput

    from llf_core.config.registry import Stage
    from llf_core.data.streaming import Stream


class StreamedRows(torch.utils.data.IterableDataset[dict[str, Any]]):
    """A stream of rows as torch's loaders know one: without a length, read by one process in order."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The stream's rows, which do not end."""
        return iter(self._stream)


class RunTrainer(TrainingLoop):
    """Minimises a stage's loss, as one mean over accumulation, ranks and evaluation batches alike.

    Each optimizer step divides the summed loss of all its micro-batches by what the stage counts in them (tokens,
    pairs, answers), so the result does not depend on how the examples were split into micro-batches, unless the
    stage `batch_dependent` them.
    """

    # compute_loss divides by the count of the whole step, so the Trainer must not divide once more.
    loss_is_scaled_for_ga = True

    def __init__(self, *, stage: Stage, **kwargs: Any) -> None:
        """Takes what `transformers.Trainer` takes, and the stage whose `loss_sum` is minimised."""
        super().__init__(stage=stage, **kwargs)
        self.label_names = list(stage.label_names)
        self.train_parts = BatchSplitter(partial(_train_in_smaller_parts, self))
        self.eval_parts = BatchSplitter(partial(_evaluate_in_smaller_parts, self))
        self._evaluated = torch.zeros(2, dtype=torch.float64)
        # Of the optimizer step under way: tokens read and learned from on all ranks, batches so far, their parts'
        # losses, the random state at its beginning.
        self._tokens = torch.zeros_like(self.seen)
        self._batches: list[dict[str, Any]] = []
        self._losses: list[Tensor] = []
        self._noted: list[tuple[Tensor, ...]] = []
        self._randomness = RNGState(self.args.device)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor | None]:
        """Collects the micro-batches of one optimizer step, counts their tokens and what is learned on all ranks."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        batches = self.stage.batches(batches)
        counts = [torch.stack([token_count(batch), learned_count(batch), self._count(batch)]) for batch in batches]
        own = torch.stack(counts).sum(0).to(device)
        whole = sum_over_ranks(own)
        self._tokens = whole[:2]
        return batches, whole[2]

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward of a batch of the loader, as one micro-batch or, where memory is short, several.

        Where memory runs out, the gradients of the optimizer step are dropped, its batches so far are computed again
        in parts half as large, and so are all later ones. The random state goes back to the step's beginning, so
        the step equals that of a run which has gone in small parts from there.

        Args:
            model: the (wrapped) model.
            inputs: a batch of either kind, see `llf_core.data.Collator`.
            num_items_in_batch: see `compute_loss`.

        Returns:
            At the last batch of an optimizer step the loss of the whole step, and 0 at those before it, which may
            have to be computed again; the Trainer adds them up.

        Raises:
            DoesNotFitError: a single document needs more memory than there is, or memory ran out in one of several
                processes, where the others would wait for it.
        """
        micro_step = super().training_step
        if not self._batches:
            self._randomness = RNGState(self.args.device)
        self._batches.append(inputs)
        step_ends = len(self._batches) >= self.current_gradient_accumulation_steps
        if num_items_in_batch is None:
            num_items_in_batch = self._count(inputs)

        def make(part: dict[str, Any], last: bool) -> Tensor:
            # Gradients are summed over ranks once a step; for the batches before the last the Trainer sees to it.
            quiet = nullcontext() if last else self.accelerator.no_sync(model)
            with quiet:
                loss: Tensor = micro_step(model, part, num_items_in_batch)
            return loss

        def undo() -> list[dict[str, Any]]:
            model.zero_grad()
            self._losses.clear()
            self._noted.clear()
            self.stage.undo()
            self._randomness.restore()
            return self._batches

        self._losses += self.train_parts.run([inputs], make, undo=undo)
        if not step_ends:
            return torch.zeros_like(self._losses[0])
        loss = torch.stack(self._losses).sum()
        self.stage.keep()
        if self._noted:
            self.noted.append((self.state.global_step + 1, self._noted))
        self._batches, self._losses, self._noted = [], [], []
        self.seen += self._tokens
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The stage's loss of a micro-batch over what it counts in the whole optimizer step.

        Args:
            model: the (wrapped) model.
            inputs: a batch of either kind, see `llf_core.data.Collator`.
            return_outputs: the Trainer asks for it when it evaluates; no logits are kept.
            num_items_in_batch: what the stage counts in the step on all ranks; None means in this batch alone.

        Returns:
            A float32 scalar, with an empty dict beside it where `return_outputs`.
        """
        count = self._count(inputs)
        if model.training:
            note = partial(self._note, inputs["numbers"]) if "numbers" in inputs else None
            total = self.stage.loss_sum(model, inputs, self.args.label_smoothing_factor, note)
            # Gradients are averaged over ranks: the factor turns that average back into a sum.
            loss = (
                total * self.accelerator.num_processes / (count if num_items_in_batch is None else num_items_in_batch)
            )
        else:
            sums = self.eval_parts.run(
                [inputs], lambda part, _: self.stage.loss_sum(model, part, 0.0), undo=self._measure_again(inputs)
            )
            self.stage.keep()
            total = torch.stack(sums).sum()
            loss = total / count
            self._evaluated += torch.stack([total.detach(), count]).cpu().double()  # MPS has no float64
        return (loss, {}) if return_outputs else loss

    def _count(self, batch: Mapping[str, Any]) -> Tensor:
        """What the stage's loss of a batch is a mean over."""
        count: Tensor | None = self.stage.count(batch)
        return learned_count(batch) if count is None else count

    def _measure_again(self, inputs: dict[str, Any]) -> Callable[[], list[dict[str, Any]]]:
        def undo() -> list[dict[str, Any]]:
            self.stage.undo()
            return [inputs]

        return undo

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """What the Trainer logs; a training loss with the means of what its stage has measured since the last one."""
        if "loss" in logs:
            logs |= self._means()
        super().log(logs, start_time)

    def _means(self) -> dict[str, float]:
        """The means of what the stage has measured, over all ranks."""
        totals: dict[str, list[float]] = {}
        for own in gather_object([self.stage.measures.take()]):
            for name, (total, count) in own.items():
                sums = totals.setdefault(name, [0.0, 0.0])
                sums[0], sums[1] = sums[0] + total, sums[1] + count
        means = {name: total / count for name, (total, count) in totals.items() if count}
        for name, parts in self.stage.differences.items():
            one, other = (means.get(part) for part in parts)
            if one is not None and other is not None:
                means[name] = one - other
        return means

    def _note(self, numbers: Tensor, losses: Tensor, tokens: Tensor) -> None:
        self._noted.append((numbers, losses, tokens))

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """The Trainer's loop, whose loss (a mean of the batches' means) is replaced by the mean over tokens."""
        self._evaluated.zero_()
        self.stage.keep()
        trained = self.stage.measures.take()  # of the steps since the last log, which are not evaluated
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        total, count = sum_over_ranks(self._evaluated).tolist()
        output.metrics[f"{metric_key_prefix}_loss"] = total / count
        means = self._means()
        output.metrics.update({f"{metric_key_prefix}_{name}": mean for name, mean in means.items()})
        for name, (measured, of) in trained.items():
            self.stage.measures.add(name, measured, of)
        self.stage.keep()
        self.stage.evaluated(means)
        return output


def _train_in_smaller_parts(trainer: RunTrainer, part: Mapping[str, Any], count: int) -> None:
    """Says that training goes on in `count` parts a batch, or why it can't."""
    size, accumulation = trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps
    batch_dependent = trainer.stage.batch_dependent
    checkpointed = any(getattr(module, "gradient_checkpointing", False) for module in trainer.model.modules())
    if trainer.accelerator.num_processes > 1:
        raise several_processes(
            part, batch_dependent=batch_dependent, size=size, accumulation=accumulation, checkpointed=checkpointed
        )
    if has_media(part) and document_count(part) > 1:
        raise with_media(part, size=size, accumulation=accumulation, checkpointed=checkpointed)
    if document_count(part) == 1:
        known = () if isinstance(trainer.train_dataset, StreamedRows) else trainer.train_dataset
        raise one_example(part, known, checkpointed=checkpointed)
    step = trainer.state.global_step + 1
    trainer.tell(
        "per_device_train_batch_size",
        training_goes_on(part, count, step=step, size=size, accumulation=accumulation, batch_dependent=batch_dependent),
    )


def _evaluate_in_smaller_parts(trainer: RunTrainer, part: Mapping[str, Any], count: int) -> None:
    """The same for an evaluation; unless examples are compared, nothing in it waits for another process."""
    if trainer.stage.batch_dependent and trainer.accelerator.num_processes > 1:
        size = trainer.args.per_device_eval_batch_size
        raise several_processes(part, batch_dependent=True, size=size, accumulation=1, checkpointed=True)
    if has_media(part) and document_count(part) > 1:
        evaluated = trainer.args.per_device_eval_batch_size
        raise with_media(part, size=evaluated, accumulation=1, checkpointed=True)
    if document_count(part) == 1:
        raise one_example(part, trainer.eval_dataset, checkpointed=True)  # an evaluation keeps no activations
    size = trainer.args.per_device_eval_batch_size
    trainer.tell(
        "per_device_eval_batch_size",
        evaluation_goes_on(part, count, size=size, batch_dependent=trainer.stage.batch_dependent),
    )
