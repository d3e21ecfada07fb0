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
        """Sum of the negative log-likelihoods of the tokens of one micro-batch, see `llf_core.stages.sft.nll_of_batch`.

        Weights of tokens (DFT, EAFT) are for completions, so this stage has the plain likelihood only.

        Args:
            model: a causal language model, perhaps wrapped.
            batch: flattened (`[1, tokens]`) or padded (`[batch, seq]`), see `llf_core.data.Collator`.
            label_smoothing: share of the probability that is spread evenly over the vocabulary, 0 to 1.
            record_losses: called with the loss of each document and its tokens, `[documents]` each; None if nobody
                needs them.

        Returns:
            A float32 scalar with a graph.

        Source:
            transformers' `ForCausalLMLoss`, summed.
        """
        return nll_of_batch(model, batch, label_smoothing, record_losses, accuracy=self.accuracy)
