from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Context(Protocol):
    """Autograd context. A kernel that keeps more than tensors declares them in a protocol of its own."""

    needs_input_grad: tuple[bool, ...]

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """Tensors of any shapes, or None, from `save_for_backward`."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors of any shapes, or None, until the backward pass.

        As attributes of the context they would stay in memory and escape checks of in-place changes.
        """
