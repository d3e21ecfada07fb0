"""Pre-training: the negative log-likelihood of every token of plain texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.stages.base.stage import LossStage
from llf_core.stages.sft import nll_of_batch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llf_core.stages.base.stage import Batch, RecordLosses


class PT(LossStage):
    """Pre-training on plain texts: the loss of SFT, with every token supervised."""

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        label_smoothing: float = 0.0,
        record_losses: RecordLosses | None = None,
    ) -> Tensor:
        """Sum of the negative log-likelihoods of the tokens of a micro-batch, a float32 scalar."""
        return nll_of_batch(model, batch, label_smoothing, record_losses, accuracy=self.accuracy)
