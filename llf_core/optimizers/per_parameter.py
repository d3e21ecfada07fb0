"""Optimizers that update one parameter at a time, in `step` or in the backward pass."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

State = dict[str, Any]
Group = dict[str, Any]
PART = 1 << 22
"""Values that are converted to float32 at a time."""


class PerParameterOptimizer(torch.optim.Optimizer):
    """An optimizer whose update of a parameter needs no gradient of another one.

    All state that a resumed run needs is in `state` and `param_groups`, as tensors, numbers and lists.

    Attributes:
        gradient_norm: norm of all gradients of the last step with layer-wise updates, a scalar; else None.
    """

    def __init__(self, groups: Iterable[Mapping[str, Any]], defaults: Mapping[str, Any], *, layerwise: bool) -> None:
        """Create the optimizer.

        Args:
            defaults: `lr` and further values of groups that do not have them.
            layerwise: update each parameter as soon as the backward pass has its gradient, and free the gradient.
                One backward pass is a step.
        """
        own: list[dict[str, Any]] = [dict(group) for group in groups if group["params"]]
        super().__init__(own, dict(defaults))
        self.gradient_norm: Tensor | None = None
        self.layerwise = layerwise
        self._squares: list[Tensor] = []
        self._begun: set[int] = set()
        if layerwise:
            self._place = {one: place for place, group in enumerate(self.param_groups) for one in group["params"]}
            for parameter in self._place:
                parameter.register_post_accumulate_grad_hook(self._update_in_backward)

    @abstractmethod
    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Update a parameter in place: in `step`, or in the backward pass with layer-wise updates.

        Args:
            parameter: of any shape.
            gradient: of the same shape; may be changed.
            state: of this parameter, empty at its first update.
            group: its group, with the learning rate of this step as `lr`.
        """

    def begin(self, group: Group) -> None:
        """Prepare a group for a step, once before its first update, such as computing its rate. Default: nothing."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient; with layer-wise updates, only compute their norm."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for place, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, place)
        if self.layerwise:
            device = self.param_groups[0]["params"][0].device
            squares = [one.to(device) for one in self._squares]
            self.gradient_norm = torch.stack(squares).sum().sqrt() if squares else torch.zeros((), device=device)
            self._squares = []
        self._begun.clear()
        return loss

    @torch.no_grad()
    def _update_in_backward(self, parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None  # noqa: S101 - torch calls this when it is there
        self._squares.append(sum_of_squares(gradient))
        self._update(parameter, gradient, self._place[parameter])

    def _update(self, parameter: Any, gradient: Tensor, place: int) -> None:
        group = self.param_groups[place]
        if place not in self._begun:
            self.begin(group)
            self._begun.add(place)
        self.update(parameter, gradient, self.state[parameter], group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a saved state, each tensor in the dtype it was saved in; torch would cast it to the parameter's."""
        super().load_state_dict(state_dict)
        for saved, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            for index, parameter in zip(saved["params"], group["params"], strict=True):
                if index in state_dict["state"]:
                    self.state[parameter] = _moved(state_dict["state"][index], parameter.device)


def sum_of_squares(tensor: Tensor) -> Tensor:
    """Sum of the squares of all values in float32, a scalar, without a float32 copy of a large tensor."""
    parts = [torch.linalg.vector_norm(part.float()) for part in torch.split(tensor.reshape(-1), PART)]
    return torch.stack(parts).square().sum()


def _moved(state: Mapping[str, object], device: torch.device) -> State:
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in state.items()}
