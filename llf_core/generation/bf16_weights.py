"""Reads float32 weights as bfloat16 where bfloat16 represents them exactly.

Decoding is bound by memory bandwidth, since a token reads every weight once. Blocks of the bfloat16 copy are converted
to float32 in the CPU cache; the products are the same float32 products of the same values.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import torch
from torch import nn

from llf_core.models.checksums import is_plain_linear

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

BLOCK_VALUES = 1 << 18
"""1 MB of float32, which fits into the cache of a CPU core."""
MAX_ROWS = 16
"""Largest batch for which products by blocks are faster than torch's product with the float32 matrix."""
MIN_VALUES = 1 << 16  # smaller weights are in the cache anyway
NAME = "_llf_narrow"


def add_bf16_copies(model: nn.Module) -> int:
    """Add bfloat16 copies to float32 weights of linear layers that bfloat16 represents exactly; returns their bytes.

    Only on a CPU, for weights of at least `MIN_VALUES` values, up to half of the free memory. A copy is used until its
    weight is modified in place or moved; weights created in inference mode get none, since their changes cannot be
    seen. Call it after `join_weights`, so that joined weights have joined copies.
    """
    from llf_core.models.step_forecast import free_memory

    free, taken = free_memory("cpu") // 2, 0
    copies: dict[int, Tensor | None] = {}  # by storage, since joined weights share one
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if not is_plain_linear(module) or not isinstance(weight, torch.Tensor) or hasattr(weight, NAME):
            continue
        if weight.device.type != "cpu" or weight.dtype != torch.float32 or weight.numel() < MIN_VALUES:
            continue
        if weight.is_inference():  # it has no counter of changes
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
            setattr(weight, NAME, (weight._version, weight.data_ptr(), narrow))  # noqa: SLF001 - torch's counter of in-place changes
    return taken


def _exact(whole: Tensor) -> Tensor | None:
    """The values in bfloat16; None if one of them would be rounded."""
    narrow = torch.empty_like(whole, dtype=torch.bfloat16)
    for start in range(0, len(whole), BLOCK_VALUES):
        part = slice(start, start + BLOCK_VALUES)
        narrow[part] = whole[part]
        if not torch.equal(narrow[part].float(), whole[part]):
            return None
    return narrow


def bf16_copy_of(weight: Tensor) -> Tensor | None:
    """The bfloat16 copy of a weight, of the same shape; None without one, or if the weight has changed."""
    if not hasattr(weight, NAME):  # weights created in inference mode have no counter of changes
        return None
    version, place, narrow = getattr(weight, NAME)
    return narrow if (version, place) == (weight._version, weight.data_ptr()) else None  # noqa: SLF001 - see above


class Bf16Matrix:
    """Products in float32 with a matrix `[out, in]` stored in bfloat16, which halves the memory traffic.

    torch's products of a few rows with a large float32 matrix are slow: eight rows take three times as long as one.
    """

    _buffers = threading.local()

    def __init__(self, matrix: Tensor) -> None:
        rows = min(len(matrix), max(1, BLOCK_VALUES // matrix.shape[1]))
        self._size = rows * matrix.shape[1]
        starts = range(0, len(matrix), rows)
        self._parts = [(matrix[start : start + rows], slice(start, start + rows)) for start in starts]
        self._out = len(matrix)

    def _blocks(self) -> Iterator[tuple[Tensor, slice]]:
        buffer = getattr(self._buffers, "buffer", None)
        if buffer is None or len(buffer) < self._size:
            self._buffers.buffer = buffer = torch.empty(self._size)  # of this thread
        for part, rows in self._parts:
            block = buffer[: part.numel()].view_as(part)
            yield block.copy_(part), rows

    def mv(self, x: Tensor) -> Tensor:
        """Compute `W x` `[out]` of a vector `[in]`, float32."""
        result = x.new_empty(self._out)
        for block, rows in self._blocks():
            torch.mv(block, x, out=result[rows])
        return result

    def mm(self, x: Tensor) -> Tensor:
        """Compute `x Wᵀ` `[batch, out]` of rows `[batch, in]`, float32; slower than torch above `MAX_ROWS` rows."""
        result = x.new_empty(len(x), self._out)
        for block, rows in self._blocks():
            torch.mm(x, block.t(), out=result[:, rows])
        return result

    def add_to(self, y: Tensor, x: Tensor) -> None:
        """Add `W x` to `y` `[out]` in place, for `x` `[in]`, both float32 and without gradient."""
        for block, rows in self._blocks():
            y[rows].addmv_(block, x)
