"""Matrix products of decoding: joined weights are multiplied at once, adapters stay unmerged.

Products of a few rows with a bfloat16 weight on a CPU: oneDNN computes them faster with the weight on the left.

Reads float32 weights as bfloat16 where bfloat16 represents them exactly.

Decoding is bound by memory bandwidth, since a token reads every weight once. Blocks of the bfloat16 copy are converted
to float32 in the CPU cache; the products are the same float32 products of the same values.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from llf_core.models.checksums import is_plain_linear

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


PROMPT_ROWS = 128
"""Largest number of rows for which joined products are reordered (`few_rows`): the operations after them here accept
rows that are not contiguous. 18 to 128 tokens were read in 0.84 to 1.0 of the time (SmolLM2 135 M, bfloat16, one
thread)."""


@dataclass(frozen=True)
class LinearWeights:
    """A linear layer's weight `[out, in]`, bias `[out]` and LoRA adapters `(A [rank, in], B [out, rank], scaling)`."""

    weight: Tensor
    bias: Tensor | None
    adapters: tuple[tuple[Tensor, Tensor, float], ...] = ()


def read_linear(module: Any) -> LinearWeights | None:
    """A layer's weights and active LoRA adapters; None if its forward may differ, as with 4-bit weights or DoRA."""
    if is_plain_linear(module):
        return LinearWeights(module.weight, module.bias)
    base = getattr(module, "base_layer", None)
    if not is_plain_linear(base) or not hasattr(module, "lora_A") or getattr(module, "fan_in_fan_out", False):
        return None
    if module.merged or module.disable_adapters:
        return None if module.merged and module.disable_adapters else LinearWeights(base.weight, base.bias)
    adapters = []
    for name in module.active_adapters:
        if name not in module.lora_A:
            continue
        down, up = module.lora_A[name], module.lora_B[name]
        if name in module.lora_variant or type(down) is not nn.Linear or up.bias is not None:
            return None
        adapters.append((down.weight, up.weight, float(module.scaling[name])))
    return LinearWeights(base.weight, base.bias, tuple(adapters))


def _contiguous_view(weights: Sequence[Tensor]) -> Tensor | None:
    """View `[sum of out, in]` of weights `[out, in]` that are adjacent in one buffer; None if they are not."""
    first = weights[0]
    if len(weights) == 1:
        return first
    after = first.storage_offset()
    for one in weights:
        same = one.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() and one.dtype == first.dtype
        if not (same and one.is_contiguous() and one.storage_offset() == after and one.shape[1:] == first.shape[1:]):
            return None
        after += one.numel()
    rows = sum(len(one) for one in weights)
    return first.detach().as_strided((rows, *first.shape[1:]), first.stride(), first.storage_offset())


class JoinedLinear:
    """Products of linear layers with the same input; unmerged adapters add two small products for all layers.

    `join_adapters` joins adapters without copies; else copies are made here.
    """

    def __init__(self, layers: Sequence[LinearWeights]) -> None:
        joined = _contiguous_view([layer.weight.detach() for layer in layers])
        self._weights = [layer.weight.detach() for layer in layers] if joined is None else [joined]
        like = self._weights[0]
        sizes = [len(layer.weight) for layer in layers]
        self._biases: list[Tensor] | list[None] = [None] * len(self._weights)
        if any(layer.bias is not None for layer in layers):
            zeros = [like.new_zeros(size) for size in sizes]
            given = [
                zero if layer.bias is None else layer.bias.detach() for layer, zero in zip(layers, zeros, strict=True)
            ]
            self._biases = given if joined is None else [torch.cat(given)]
        self._down, self._up, self._scaling = _joined_adapters(layers, like)
        copies = [copy for layer in layers if (copy := bf16_copy_of(layer.weight)) is not None]
        narrow = _contiguous_view(copies) if len(copies) == len(layers) and joined is not None else None
        self._narrow = None if narrow is None else Bf16Matrix(narrow)
        self._single = self._weights[0] if len(self._weights) == 1 and self._biases[0] is None else None
        self._alike: dict[int, bool] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply `x` `[in]` or `[batch, in]`; the outputs of the layers are concatenated, `[out]` or `[batch, out]`.

        Source:
            `y = x Wᵀ + b + scale * (x Aᵀ) Bᵀ`: LoRA, arXiv 2106.09685, equation 3.
        """
        if x.dim() == 1:
            if self._narrow is not None:
                y = self._narrow.mv(x)
                y = y if self._biases[0] is None else y.add_(self._biases[0])
            elif self._single is not None:
                y = torch.mv(self._single, x)
            else:
                parts = [
                    torch.mv(weight, x) if bias is None else torch.addmv(bias, weight, x)
                    for weight, bias in zip(self._weights, self._biases, strict=True)
                ]
                y = parts[0] if len(parts) == 1 else torch.cat(parts)
        elif self._narrow is not None and len(x) <= MAX_ROWS:
            y = self._narrow.mm(x)
            y = y if self._biases[0] is None else y.add_(self._biases[0])
        else:
            parts = [
                few_rows_linear(x, weight, bias, max_rows=PROMPT_ROWS)
                for weight, bias in zip(self._weights, self._biases, strict=True)
            ]
            y = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return self._adapt(y, x)

    def rows(self, x: Tensor) -> Tensor:
        """Multiply rows so that the result of a row does not depend on the batch, also in 16 bits.

        More than `TILE` rows are multiplied by tiles, unless this processor computes them all like tiles.

        Args:
            x: `[batch, in]`, in 16 bits a multiple of `TILE` rows; or `[in]` in more.
        """
        if x.dim() == 1 or x.dtype.itemsize > 2 or len(x) <= TILE:  # noqa: PLR2004 - bytes; wider numbers do not show the order of a sum
            return self(x)
        if len(x) not in self._alike:
            drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
            self._alike[len(x)] = torch.equal(self(drawn), self._by_tiles(drawn))
        return self(x) if self._alike[len(x)] else self._by_tiles(x)

    def _by_tiles(self, x: Tensor) -> Tensor:
        return torch.cat([self(tile) for tile in torch.split(x, TILE)])

    def add_to(self, y: Tensor, x: Tensor) -> None:
        """Add the product of a vector `x` `[in]` to `y` `[out]` in place, as for a residual connection."""
        if self._single is not None and self._narrow is not None:
            self._narrow.add_to(y, x)
            self._adapt(y, x)
        elif self._single is not None:
            self._adapt(y.addmv_(self._single, x), x)
        else:
            y.add_(self(x))

    def _adapt(self, y: Tensor, x: Tensor) -> Tensor:
        if self._down is None or self._up is None:
            return y
        if x.dim() == 1:
            return y.addmv_(self._up, torch.mv(self._down, x), alpha=self._scaling)
        return y.addmm_(F.linear(x, self._down), self._up.t(), alpha=self._scaling)


def _joined_adapters(layers: Sequence[LinearWeights], like: Tensor) -> tuple[Tensor | None, Tensor | None, float]:
    """A matrices stacked `[sum of ranks, in]`, B matrices block-diagonal `[sum of out, sum of ranks]`, and a factor."""
    adapters = [one for layer in layers for one in layer.adapters]
    if not adapters:
        return None, None, 1.0
    downs, ups = [down.detach() for down, _, _ in adapters], [up.detach() for _, up, _ in adapters]
    scalings = {scaling for _, _, scaling in adapters}
    if len(scalings) > 1:
        ups = [up.float() * scaling for up, (_, _, scaling) in zip(ups, adapters, strict=True)]
    downs, ups = [down.to(like.dtype) for down in downs], [up.to(like.dtype) for up in ups]
    starts = _output_starts(layers)
    rows = sum(len(layer.weight) for layer in layers)
    down, up = _contiguous_view(downs), _diagonal_view(ups, starts, rows)
    return (
        torch.cat(downs) if down is None else down,
        _diagonal(ups, starts, rows) if up is None else up,
        scalings.pop() if len(scalings) == 1 else 1.0,
    )


def _output_starts(layers: Sequence[LinearWeights]) -> list[int]:
    """For each adapter, the index of its first output among the outputs of all layers."""
    starts, start = [], 0
    for layer in layers:
        starts += [start] * len(layer.adapters)
        start += len(layer.weight)
    return starts


def _diagonal(ups: Sequence[Tensor], starts: Sequence[int], rows: int) -> Tensor:
    whole, column = ups[0].new_zeros(rows, sum(up.shape[1] for up in ups)), 0
    for up, start in zip(ups, starts, strict=True):
        whole[start : start + len(up), column : column + up.shape[1]] = up
        column += up.shape[1]
    return whole


def _diagonal_view(ups: Sequence[Tensor], starts: Sequence[int], rows: int) -> Tensor | None:
    """The result of `_diagonal` without a copy; None if the matrices are not these blocks of a tensor of this size."""
    columns, column = sum(up.shape[1] for up in ups), 0
    storage = ups[0].untyped_storage()
    if storage.nbytes() != rows * columns * ups[0].element_size():
        return None
    for up, start in zip(ups, starts, strict=True):
        here = (storage.data_ptr(), start * columns + column, (columns, 1), ups[0].dtype)
        if (up.untyped_storage().data_ptr(), up.storage_offset(), up.stride(), up.dtype) != here:
            return None
        column += up.shape[1]
    return ups[0].as_strided((rows, columns), (columns, 1), 0)


def join_weights(model: nn.Module) -> int:
    """Move weights with the same input into one buffer each, to multiply them at once; returns the number of buffers.

    Joined are query, key and value projections, and gate and up projections, by their names. The parameters become
    views of the buffer. Do not train the model afterwards: other references to a weight's old memory would keep it
    alive.
    """
    joined = 0
    for parts in _with_one_input(model):
        layers = [getattr(part, "base_layer", part) for part in parts]
        if any(not is_plain_linear(layer) or layer.weight.is_meta for layer in layers):
            continue
        weights: list[nn.Parameter] = [layer.weight for layer in layers]
        alike = {(weight.dtype, weight.device, weight.shape[1]) for weight in weights}
        if len(alike) > 1 or _contiguous_view([weight.detach() for weight in weights]) is not None:
            continue
        _move(weights)
        joined += 1
    return joined


def _with_one_input(model: nn.Module) -> Iterator[list[Any]]:
    """Modules that multiply the same input, by their names; None for a missing one."""
    for module in model.modules():
        for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
            yield [getattr(module, name, None) for name in names]


def _move(weights: Sequence[nn.Parameter]) -> None:
    """Move weights into one buffer; the parameters become views of it."""
    buffer, start = torch.cat([weight.detach() for weight in weights]), 0
    for weight in weights:
        weight.data = buffer[start : start + len(weight)]
        start += len(weight)


def join_adapters(model: nn.Module) -> int:
    """Move the LoRA matrices of layers with the same input into one buffer each; returns the number of such groups.

    The parameters become views, which are not contiguous for B. Do not train or save the model afterwards.
    """
    joined = 0
    for parts in _with_one_input(model):
        layers = [read_linear(part) for part in parts]
        read = [layer for layer in layers if layer is not None]
        downs: list[Any] = [down for layer in read for down, _, _ in layer.adapters]
        ups: list[Any] = [up for layer in read for _, up, _ in layer.adapters]
        alike = {(one.dtype, one.device) for one in (*downs, *ups)}
        if len(read) < len(layers) or len(ups) < 2 or len(alike) > 1:  # noqa: PLR2004 - a single one needs no joining
            continue
        _move(downs)
        starts, column = _output_starts(read), 0
        whole = _diagonal([up.detach() for up in ups], starts, sum(len(layer.weight) for layer in read))
        for up, start in zip(ups, starts, strict=True):
            size = up.shape[1]
            up.data = whole[start : start + len(up), column : column + size]
            column += size
        joined += 1
    return joined


TILE = 8
"""Number of rows of a product in 16 bits whose rows are computed in one way, however few of them are used. A product
of another shape may add up in another order, which bfloat16 makes visible. `F.linear` of 8 rows takes no longer than
`torch.mv` of one."""

MAX_ROWS = 16
"""Largest number of rows for which `few_rows_linear` reorders the product: with 2 to 16 rows it took 0.5 to 0.75 of
the time of `F.linear` (weights of Llamas from 135 M to 1 B, AMX). A prompt of 40 tokens is read slower, since the
next operations read rows that are not contiguous (`benchmarks/chat.py`: first token 1.2 in place of 1.0)."""


def few_rows_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, max_rows: int = MAX_ROWS) -> Tensor:
    """Compute `x Wᵀ + b` as `(W xᵀ)ᵀ + b` where that is faster, as in decoding a batch; `F.linear` elsewhere.

    Args:
        x: `[..., in]`.
        weight: `[out, in]`, of the dtype of `x`.

    Returns:
        `[..., out]`; its rows may not be contiguous.
    """
    rows = x.numel() // max(x.shape[-1], 1)
    if (
        x.dtype != torch.bfloat16
        or weight.dtype != x.dtype
        or x.device.type != "cpu"
        or not _least() <= rows <= max_rows
    ):
        return F.linear(x, weight, bias)
    y = torch.mm(weight, x.reshape(rows, -1).t()).t()
    return (y if bias is None else y + bias).view(*x.shape[:-1], len(weight))


@cache
def _least() -> int:
    """Smallest number of reordered rows: without AMX, `F.linear` took 0.5 to 0.9 of the time of 2 to 8 rows."""
    return 2 if torch.cpu._is_amx_tile_supported() else TILE + 1  # noqa: SLF001 - torch has no public name


def speed_up_few_rows(model: nn.Module) -> int:
    """Let the bfloat16 linear layers of a model on a CPU, also if PEFT wraps them later, use `few_rows_linear`."""
    changed = 0
    for module in model.modules():
        if is_plain_linear(module) and module.weight.dtype == torch.bfloat16 and module.weight.device.type == "cpu":
            module.forward = partial(_forward, module)  # type: ignore[method-assign]
            changed += 1
    return changed


def _forward(module: nn.Linear, x: Tensor) -> Tensor:
    return few_rows_linear(x, module.weight, module.bias)


BLOCK_VALUES = 1 << 18
"""1 MB of float32, which fits into the cache of a CPU core."""
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
