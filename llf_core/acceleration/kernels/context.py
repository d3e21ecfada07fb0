"""What autograd gives the two passes of a `torch.autograd.Function`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Context(Protocol):
    """A context. A kernel that keeps more than tensors names it in a protocol of its own.

    Attributes:
        needs_input_grad: whether a gradient is wanted, for each argument of the forward pass.
    """

    needs_input_grad: tuple[bool, ...]

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved: tensors, and None in the place of None."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for the backward pass.

        Args:
            *tensors: any shapes.
        """
