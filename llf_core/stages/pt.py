"""Pre-training: the negative log-likelihood of every token of plain texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.stages.base.stage import LossStage
from llf_core.stages.sft import nll_of_batch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llf_core.stages.base.stage import Batch, RecordLosses


class PT(LossStage):
    """Trains on all of plain texts; the formula is that of answers, of which every token is one."""

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        label_smoothing: float = 0.0,
        record_losses: RecordLosses | None = None,
    ) -> Tensor:
        """Sum of the loss over the tokens of one micro-batch, see `llf_core.stages.sft.nll_of_batch`.

        Args:
            model: a causal language model, perhaps wrapped.
            batch: of either kind, see `llf_core.data.Collator`.
            label_smoothing: share of the probability that is spread evenly over the vocabulary, 0 to 1.
            record_losses: called with the loss of each document and its tokens, see `LossStage.loss_sum`.

        Returns:
            A float32 scalar with a graph.
        """
        return nll_of_batch(model, batch, label_smoothing, record_losses)
