"""Float32 weights whose numbers bfloat16 holds exactly, read as bfloat16.

One token meets every weight once, so it takes as long as the memory takes to hand them over. Most models are stored
in bfloat16: in float32 half of what is read are zeros. Blocks of the narrow copy become float32 in the cache, and the
products are the same float32 products of the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

ROOM = 1 << 20  # numbers of a block: 4 MB of float32, which a CPU's cache holds
SMALL = 1 << 16  # weights of fewer numbers are in the cache anyway
NAME = "_llf_narrow"


def narrow_weights(model: nn.Module) -> int:
    """Keeps a bfloat16 copy beside each float32 weight of a linear layer that it holds exactly.

    Only on a CPU, and only while no more than half of the free memory goes into copies. A copy counts as long as its
    weight is not changed in place. Call it after `join_weights`: neighbours stay neighbours.

    Args:
        model: is only read from, from now on.

    Returns:
        Bytes of the copies.
    """
    from llf_core.models.step_forecast import free_memory

    free, taken = free_memory("cpu") // 2, 0
    copies: dict[int, Tensor | None] = {}  # by storage, since neighbours share one
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if type(module) is not nn.Linear or not isinstance(weight, torch.Tensor) or hasattr(weight, NAME):
            continue
        if weight.device.type != "cpu" or weight.dtype != torch.float32 or weight.numel() < SMALL:
            continue
        storage = weight.untyped_storage()
        if storage.data_ptr() not in copies:
            whole = torch.empty(0).set_(storage)
            fits = taken + whole.nbytes // 2 <= free
            copies[storage.data_ptr()] = copy = _exact(whole) if fits else None
            taken += 0 if copy is None else copy.nbytes
        copy = copies[storage.data_ptr()]
        if copy is not None and weight.is_contiguous():
            narrow = copy[weight.storage_offset() :][: weight.numel()].view_as(weight)
            setattr(weight, NAME, (weight._version, weight.data_ptr(), narrow))  # noqa: SLF001 - torch's count of changes
    return taken


def _exact(whole: Tensor) -> Tensor | None:
    """The numbers in bfloat16; None where it rounds one of them."""
    narrow = torch.empty_like(whole, dtype=torch.bfloat16)
    for start in range(0, len(whole), ROOM):
        part = slice(start, start + ROOM)
        narrow[part] = whole[part]
        if not torch.equal(narrow[part].float(), whole[part]):
            return None
    return narrow


def narrow_of(weight: Any) -> Tensor | None:
    """The copy that `narrow_weights` made, where the weight is still what it was."""
    if not hasattr(weight, NAME):  # a weight that was made in inference mode counts no changes
        return None
    version, place, narrow = getattr(weight, NAME)
    return narrow if (version, place) == (weight._version, weight.data_ptr()) else None  # noqa: SLF001 - see above


class Narrow:
    """Products of a float32 vector with a matrix that is read narrow."""

    def __init__(self, matrix: Tensor) -> None:
        """Takes the matrix, `[out, in]` in bfloat16."""
        rows = max(1, ROOM // matrix.shape[1])
        starts = range(0, len(matrix), rows)
        self._parts = [(matrix[start : start + rows], slice(start, start + rows)) for start in starts]
        self._out = len(matrix)

    def _blocks(self) -> Iterator[tuple[Tensor, slice]]:
        for part, rows in self._parts:
            yield part.float(), rows

    def mv(self, x: Tensor) -> Tensor:
        """`[in]` to `[out]`."""
        result = x.new_empty(self._out)
        for block, rows in self._blocks():
            torch.mv(block, x, out=result[rows])
        return result

    def add_to(self, y: Tensor, x: Tensor) -> None:
        """Adds the product to `y` in place."""
        for block, rows in self._blocks():
            y[rows].addmv_(block, x)
