"""Reward models: one score for each completion, higher for the preferred one of a pair (Bradley-Terry)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F  # noqa: N812 - torch's own short name

from llf_core.acceleration.patching.causal_head import forward_hidden
from llf_core.config.declarations.stages.dpo import RMOptions
from llf_core.data.collate import PairCollator
from llf_core.models.reward_model import score_hidden_states
from llf_core.stages.base.stage import LossStage
from llf_core.stages.reference_logprobs import group_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.base.stage import Batch, RecordLosses


def pair_losses(chosen: Tensor, rejected: Tensor, center: float = 0.0) -> Tensor:
    """Bradley-Terry loss of each pair of rewards, `[pairs]`: `-log sigmoid(r_c - r_r) + center · (r_c + r_r)²`.

    The first term depends on differences only (arXiv 1706.03741, section 2.2.3; arXiv 2203.02155, equation 1); the
    second, `center_rewards_coefficient`, holds the mean near 0 (arXiv 2312.09244, equation 2).
    """
    losses = -F.logsigmoid(chosen - rejected)
    return losses + center * (chosen + rejected).square() if center else losses


class RM(LossStage):
    """Trains a model to score completions, from pairs of which one is preferred."""

    label_names: ClassVar[tuple[str, ...]] = ("ends",)

    def __init__(self, context: TrainingContext | None = None) -> None:
        super().__init__(context)
        self._center = 0.0 if context is None else context.config.options(RMOptions).center_rewards_coefficient or 0.0

    def collator(self, **options: Any) -> PairCollator:
        """Create the collator of pairs, whose shared prompt is read once if the model allows it."""
        return PairCollator(**options, fork=self.context.forks)

    @staticmethod
    def count(batch: Mapping[str, Any]) -> Tensor:
        """Number of pairs in a batch of `PairCollator`, an int64 scalar."""
        return group_count(batch)

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        label_smoothing: float = 0.0,  # noqa: ARG002 - refused by a rule
        record_losses: RecordLosses | None = None,
    ) -> Tensor:
        """Sum of the losses (`pair_losses`) of the pairs of a batch of `PairCollator`, a float32 scalar with a graph.

        The reward is read from the hidden state of each completion's last token by the layer of `add_reward_head`.
        `record_losses` gets the loss of each pair, `[pairs]`, and ones.
        """

        def objective(hidden: Tensor) -> Tensor:
            return score_hidden_states(model, hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch["ends"]))

        rewards: Tensor = forward_hidden(model, batch, objective)
        chosen, rejected = rewards.view(-1, 2).unbind(1)
        losses = pair_losses(chosen, rejected, self._center)
        if record_losses is not None:
            record_losses(losses.detach(), losses.new_ones(len(losses)).long())
        self._measure(chosen.detach(), rejected.detach())
        return losses.sum()

    def _measure(self, chosen: Tensor, rejected: Tensor) -> None:
        pairs = len(chosen)
        self.measures.add("rewards/chosen", chosen.sum(), pairs)
        self.measures.add("rewards/rejected", rejected.sum(), pairs)
        self.measures.add("rewards/margins", (chosen - rejected).sum(), pairs)
        self.measures.add("rewards/accuracies", (chosen > rejected).sum(), pairs)
