"""Context that autograd passes to both passes of a `torch.autograd.Function`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Context(Protocol):
    """Autograd context. A kernel that keeps more than tensors declares them in a protocol of its own.

    Attributes:
        needs_input_grad: whether a gradient is needed, for each argument of the forward pass.
    """

    needs_input_grad: tuple[bool, ...]

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What the forward pass has saved for the backward pass: tensors of any shapes, None where None was saved."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for the backward pass; torch frees them after it.

        Tensors that are attributes of the context instead would stay in memory and escape checks of in-place changes.

        Args:
            *tensors: any shapes; None keeps a place free.
        """
