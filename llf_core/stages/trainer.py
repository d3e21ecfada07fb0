"""The one subclass of `transformers.Trainer`. It overrides public methods only; a test pins their signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from transformers import Trainer

from llf_core.stages.sft import IGNORED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn
    from transformers.trainer_utils import EvalLoopOutput

    from llf_core.config.registry import Stage


def supervised_tokens(labels: Tensor) -> Tensor:
    """Counts the labels that are learned from: all but `-100`, and never a row's first, which nothing predicts.

    Args:
        labels: `[batch, seq]`, int64.

    Returns:
        An int64 scalar.
    """
    return (labels[..., 1:] != IGNORED).sum()


def tokens_read(batch: Mapping[str, Any]) -> Tensor:
    """Counts the tokens of a batch that are no padding.

    Args:
        batch: flattened (no `attention_mask`: every token counts) or padded, see `llf_core.data.Collator`.

    Returns:
        An int64 scalar on the batch's device.
    """
    mask = batch.get("attention_mask")
    if mask is None:
        ids = batch["input_ids"]
        return torch.full((), ids.numel(), dtype=torch.int64, device=ids.device)
    return mask.sum(dtype=torch.int64)


class RunTrainer(Trainer):  # type: ignore[misc]  # transformers ships no types
    """Minimises a stage's loss, weighted by tokens over accumulation, ranks and evaluation batches alike.

    Each optimizer step divides the summed loss of all its micro-batches by their supervised tokens, so the
    result does not depend on how the examples were split into micro-batches.
    """

    # compute_loss divides by the tokens of the whole step, so the Trainer must not divide once more.
    loss_is_scaled_for_ga = True

    def __init__(self, *, stage: type[Stage], **kwargs: Any) -> None:
        """Takes what `transformers.Trainer` takes, and the stage whose `loss_sum` is minimised."""
        super().__init__(**kwargs)
        self.stage = stage
        self.seen = torch.zeros(2, dtype=torch.int64, device=self.args.device)
        self._evaluated = torch.zeros(2, dtype=torch.float64)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The Trainer's schedule; `warmup_stable_decay` decays over two thirds of the steps after the warm-up."""
        options = dict(self.args.lr_scheduler_kwargs or {})
        if self.args.lr_scheduler_type == "warmup_stable_decay" and "num_decay_steps" not in options:
            after_warmup = num_training_steps - self.args.get_warmup_steps(num_training_steps)
            options["num_decay_steps"] = after_warmup - options.get("num_stable_steps", after_warmup // 3)
            self.args.lr_scheduler_kwargs = options
        schedule: torch.optim.lr_scheduler.LRScheduler = super().create_scheduler(num_training_steps, optimizer)
        return schedule

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor | None]:
        """Collects the micro-batches of one optimizer step and counts their supervised tokens on all ranks."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        count = torch.stack([supervised_tokens(batch["labels"]) for batch in batches]).sum().to(device)
        return batches, self.accelerator.gather(count).sum()

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One forward and backward of a micro-batch; keeps count of the tokens it read and learned from."""
        self.seen += torch.stack([tokens_read(inputs), supervised_tokens(inputs["labels"])]).to(self.seen.device)
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The stage's loss of a micro-batch over the supervised tokens of the whole optimizer step.

        Args:
            model: the (wrapped) model.
            inputs: a batch of either kind, see `llf_core.data.Collator`.
            return_outputs: the Trainer asks for it when it evaluates; no logits are kept.
            num_items_in_batch: supervised tokens of the step on all ranks; None means of this batch alone.

        Returns:
            A float32 scalar, with an empty dict beside it where `return_outputs`.
        """
        count = supervised_tokens(inputs["labels"])
        total = self.stage.loss_sum(model, inputs, self.args.label_smoothing_factor if model.training else 0.0)
        if model.training:
            # Gradients are averaged over ranks: the factor turns that average back into a sum.
            loss = (
                total * self.accelerator.num_processes / (count if num_items_in_batch is None else num_items_in_batch)
            )
        else:
            loss = total / count
            self._evaluated += torch.stack([total.detach(), count]).cpu().double()  # MPS has no float64
        return (loss, {}) if return_outputs else loss

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """The Trainer's loop, whose loss (a mean of the batches' means) is replaced by the mean over tokens."""
        self._evaluated.zero_()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        total, count = (sum(rank) for rank in zip(*gather_object([self._evaluated.tolist()]), strict=True))
        output.metrics[f"{metric_key_prefix}_loss"] = total / count
        return output
