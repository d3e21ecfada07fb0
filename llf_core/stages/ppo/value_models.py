"""The value function: a head on the policy, or a separate model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class ValueHead(nn.Module):
    """Value of a hidden state, in float32: `V(s) = w · h + b`, a linear layer as in TRL's value head.

    It starts at 0 unless a weight is given, so that the first advantages depend on the rewards alone: Σ_l (γλ)^l
    r_{t+l}.
    """

    def __init__(self, width: int, device: torch.device | str, weight: Tensor | None = None) -> None:
        """Create the head; `weight` `[1, width]`, such as a reward model's head, is its initial value."""
        super().__init__()
        self.linear = nn.Linear(width, 1, device=device, dtype=torch.float32)
        with torch.no_grad():
            self.linear.bias.zero_()
            if weight is None:
                self.linear.weight.zero_()
            else:
                self.linear.weight.copy_(weight)

    def forward(self, rows: Tensor, batch: Mapping[str, Any]) -> Tensor:  # noqa: ARG002 - a model of its own needs it
        """Value of the state before each completion token, `[tokens]`, float32 also under autocast.

        `rows` `[tokens, width]` are the hidden states that predict the tokens; `batch` is for `ValueModel.forward`.
        """
        with torch.autocast(rows.device.type, enabled=False):
            values: Tensor = self.linear(rows.float())
        return values.squeeze(-1)


class ValueModel(nn.Module):
    """A separate model with a `ValueHead`, as in the original recipe (arXiv 2203.02155, section 3.5)."""

    def __init__(self, model: nn.Module, head: ValueHead) -> None:
        super().__init__()
        self.model = model
        self.head = head

    def forward(self, rows: Tensor, batch: Mapping[str, Any]) -> Tensor:  # noqa: ARG002 - the policy's are not used
        """Value before each completion token, `[tokens]`, float32, from the value model's own hidden states."""
        from llf_core.acceleration.patching.causal_head import forward_hidden

        def objective(hidden: Tensor) -> Tensor:
            own = hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch["predictors"])
            found: Tensor = self.head(own, batch)
            return found

        values: Tensor = forward_hidden(self.model, batch, objective)
        return values


class UnsavedModule(nn.Module):
    """Registers a module as part of a model for optimizers and wrappers, and keeps it out of the saved files."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def state_dict(self, *_: object, destination: dict[str, Tensor] | None = None, **__: object) -> Any:
        """An empty state dict (any shape): the stage saves the parameters, and the result loads as a plain model."""
        return {} if destination is None else destination

    def trained(self) -> dict[str, nn.Parameter]:
        """Trained parameters by name, of any shape, which the stage saves and loads."""
        return {name: parameter for name, parameter in self.inner.named_parameters() if parameter.requires_grad}
