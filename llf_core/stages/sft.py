"""Supervised fine-tuning: the negative log-likelihood of the answers' tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llf_core.config.labels import IGNORED
from llf_core.config.registry import Stage

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llf_core.fast.head import Head


def shifted_targets(labels: Tensor) -> Tensor:
    """Moves each label to the position that predicts it.

    Args:
        labels: `[batch, seq]`, int64; `-100` where nothing is learned.

    Returns:
        `[batch, seq]`: `labels` one to the left, with `-100` in the last column.
    """
    import torch.nn.functional as F  # noqa: N812 - torch's own short name

    return F.pad(labels[..., 1:], (0, 1), value=IGNORED)


class SFT(Stage):
    """Trains on the answers of conversations; the prompts are only read."""

    name: ClassVar[str] = "sft"
    label: ClassVar[str] = "sft (answers)"

    @staticmethod
    def loss_sum(model: nn.Module, batch: dict[str, Tensor], label_smoothing: float = 0.0) -> Tensor:
        """Sum of the loss over the supervised tokens of one micro-batch.

        Args:
            model: a causal language model, perhaps wrapped.
            batch: of either kind, see `llf_core.data.Collator`.
            label_smoothing: see `llf_core.fast.loss.nll_sum`.

        Returns:
            A float32 scalar with a graph: the sum, not the mean, so that the caller can weight by tokens over
            accumulation and ranks.
        """
        from llf_core.fast.head import forward
        from llf_core.fast.loss import nll_sum

        targets = shifted_targets(batch["labels"])

        def objective(hidden: Tensor, head: Head) -> Tensor:
            return nll_sum(hidden, head, targets, label_smoothing)

        loss: Tensor = forward(model, batch, objective)
        return loss
