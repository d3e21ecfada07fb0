"""Supervised fine-tuning: the negative log-likelihood of the answers' tokens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from llf_core.config.ignore_index import IGNORED
from llf_core.stages.base.stage import LossStage

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from llf_core.acceleration.patching.causal_head import Head


def shifted_targets(labels: Tensor) -> Tensor:
    """Moves each label to the position that predicts it.

    Args:
        labels: `[batch, seq]`, int64; `-100` where nothing is learned.

    Returns:
        `[batch, seq]`: `labels` one to the left, with `-100` in the last column.
    """
    import torch.nn.functional as F  # noqa: N812 - torch's own short name

    return F.pad(labels[..., 1:], (0, 1), value=IGNORED)


def record_document_losses(
    batch: dict[str, Tensor], record_losses: Callable[[Tensor, Tensor], object], positions: Tensor, costs: Tensor
) -> None:
    """Record the loss and the number of supervised tokens of each document of a batch.

    Args:
        batch: see `llf_core.data.Collator`.
        record_losses: called with losses and token counts, `[documents]` each.
        positions: `[N]`, int64: positions of the supervised tokens in the flattened batch.
        costs: `[N]`, their losses.
    """
    import torch

    ends = batch.get("cu_seq_lens_q")
    count = len(batch["input_ids"]) if ends is None else len(ends) - 1
    if ends is None:
        documents = positions // batch["input_ids"].shape[-1]
    else:
        documents = torch.bucketize(positions, ends[1:].long(), right=True)
    sums = costs.new_zeros(count).index_add_(0, documents, costs)
    record_losses(sums, torch.bincount(documents, minlength=count))


class SFT(LossStage):
    """Trains on the answers of conversations; the prompts are only read."""

    @staticmethod
    def loss_sum(
        model: nn.Module,
        batch: dict[str, Tensor],
        label_smoothing: float = 0.0,
        record_losses: Callable[[Tensor, Tensor], object] | None = None,
    ) -> Tensor:
        """Sum of the loss over the supervised tokens of one micro-batch.

        Args:
            model: a causal language model, perhaps wrapped.
            batch: of either kind, see `llf_core.data.Collator`.
            label_smoothing: see `llf_core.acceleration.kernels.token_loss.nll_sum`.
            record_losses: called with the loss of each document and its tokens, see `LossStage.loss_sum`.

        Returns:
            A float32 scalar with a graph: the sum, not the mean, so that the caller can weight by tokens over
            accumulation and ranks.
        """
        from llf_core.acceleration.kernels.token_loss import nll_sum
        from llf_core.acceleration.patching.causal_head import forward

        targets = shifted_targets(batch["labels"])
        record_costs = None if record_losses is None else partial(record_document_losses, batch, record_losses)

        def objective(hidden: Tensor, head: Head) -> Tensor:
            return nll_sum(hidden, head, targets, label_smoothing, record_costs)

        loss: Tensor = forward(model, batch, objective)
        return loss
