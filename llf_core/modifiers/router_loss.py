"""Adds the load balancing loss of the routers of a mixture-of-experts model (arXiv 2101.03961)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.acceleration.patching.causal_head import causal_of
from llf_core.config.declarations.modifiers import RouterLossOptions
from llf_core.models.router_loss import watch_routers
from llf_core.modifiers.modifier import ExtraLoss, Modifier

if TYPE_CHECKING:
    from torch import nn


class RouterLoss(Modifier):
    """Records the outputs of the routers, and adds their load balancing loss to each micro-batch."""

    def apply(self, model: nn.Module) -> None:
        """Register hooks that record the outputs of the routers."""
        self.outputs = watch_routers(causal_of(model))
        self.coefficient = self.config.options(RouterLossOptions).moe_aux_loss_coef or 0.0

    def extra_loss(self) -> ExtraLoss | None:
        """Load balancing loss of a micro-batch times `moe_aux_loss_coef` and its number of tokens.

        The loss is that of the Switch Transformer (arXiv 2101.03961, equation 4), as transformers computes it.

        Returns:
            Scalars; `aux_loss` is without the coefficient. None without a training forward pass since the last call.
        """
        found = self.outputs.take_loss()
        if found is None:
            return None
        loss, tokens = found
        return ExtraLoss(self.coefficient * loss * tokens, {"aux_loss": (loss.detach() * tokens, tokens)})

    def remove(self, model: nn.Module) -> None:  # noqa: ARG002 - the hooks know their modules
        """Remove the hooks, which would keep the outputs of the routers in memory."""
        for hook in self.outputs.hooks:
            hook.remove()
