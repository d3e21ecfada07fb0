"""Matrix products of decoding: joined weights are multiplied at once, adapters stay unmerged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from llf_core.generation.bf16_weights import MAX_ROWS, Bf16Matrix, bf16_copy_of
from llf_core.generation.few_rows import few_rows_linear
from llf_core.models.parameter_count import is_plain_linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

PROMPT_ROWS = 64
"""Largest number of rows for which joined products are reordered (`few_rows`): what follows them here takes rows that
are not contiguous. 18 to 64 tokens were read in 0.84 to 0.94 of the time (SmolLM2 135 M, bfloat16, one thread)."""


@dataclass(frozen=True)
class LinearWeights:
    """A linear layer's base weight and its active LoRA adapters.

    Attributes:
        weight: `[out, in]`.
        bias: `[out]`, or None.
        adapters: `(A [rank, in], B [out, rank], scaling)` of each adapter.
    """

    weight: Tensor
    bias: Tensor | None
    adapters: tuple[tuple[Tensor, Tensor, float], ...] = ()


def read_linear(module: Any) -> LinearWeights | None:
    """Read a layer's weights and active LoRA adapters; None if its forward may differ from their product.

    The fast forward multiplies weights directly and would ignore whatever else the layer does, such as dequantizing
    4-bit weights or DoRA's norms.

    Args:
        module: any module.
    """
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
    """View of weights that follow one another in one buffer, so that one product computes all of them.

    Args:
        weights: `[out, in]` each, at least one.

    Returns:
        `[sum of out, in]`, without a copy; None if they do not follow one another or differ in dtype or `in`.
    """
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
    """Products of linear layers with the same input.

    Adapters are not merged: their small matrices are concatenated (copies, small beside the weights), so that all
    layers with the same input cost only two more small products, and rounding is that of the adapted layers.

    Args:
        layers: in the order of their outputs.
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
        self._down, self._up = _adapters(layers, sizes, like)
        copies = [copy for layer in layers if (copy := bf16_copy_of(layer.weight)) is not None]
        narrow = _contiguous_view(copies) if len(copies) == len(layers) and joined is not None else None
        self._narrow = None if narrow is None else Bf16Matrix(narrow)
        self._single = self._weights[0] if len(self._weights) == 1 and self._biases[0] is None else None

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply, with adapters and biases.

        Args:
            x: `[in]` or `[batch, in]`.

        Returns:
            `[out]` or `[batch, out]`, the outputs of the layers one after the other.

        Raises:
            RuntimeError: shapes or dtypes do not fit, or out of memory.

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

    def add_to(self, y: Tensor, x: Tensor) -> None:
        """Add the product to `y` in place, as a residual connection needs it.

        A vector times a single weight without a bias is added directly, without an intermediate tensor.

        Args:
            y: `[out]` or `[batch, out]`; changed in place.
            x: `[in]` or `[batch, in]`.

        Raises:
            RuntimeError: shapes or dtypes do not fit, or out of memory.

        Source:
            LoRA, arXiv 2106.09685, equation 3.
        """
        if x.dim() == 1 and self._single is not None and self._narrow is not None:
            self._narrow.add_to(y, x)
            self._adapt(y, x)
        elif x.dim() == 1 and self._single is not None:
            self._adapt(y.addmv_(self._single, x), x)
        else:
            y.add_(self(x))

    def _adapt(self, y: Tensor, x: Tensor) -> Tensor:
        if self._down is None or self._up is None:
            return y
        if x.dim() == 1:
            return y.addmv_(self._up, torch.mv(self._down, x))
        return y.add_(F.linear(F.linear(x, self._down), self._up))


def _adapters(layers: Sequence[LinearWeights], sizes: list[int], like: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """All A matrices stacked, and all scaled B matrices as a block diagonal matrix."""
    downs, ups, start = [], [], 0
    for layer, size in zip(layers, sizes, strict=True):
        for down, up, scaling in layer.adapters:
            downs.append(down.detach().to(like.dtype))
            block = like.new_zeros(sum(sizes), up.shape[1])
            block[start : start + size] = (up.detach().float() * scaling).to(like.dtype)
            ups.append(block)
        start += size
    return (torch.cat(downs), torch.cat(ups, dim=1)) if downs else (None, None)


def join_weights(model: nn.Module) -> int:
    """Move weights with the same input into one buffer each, so that they are multiplied at once; no copy is kept.

    Joined are query, key and value projections of a layer, and gate and up projections of an MLP, by their names. The
    parameters become views of the new buffer. Do not train the model afterwards: other references to a weight's old
    memory would keep it alive.

    Args:
        model: causal language model, wrapped by PEFT or not.

    Returns:
        Number of joined groups.

    Raises:
        RuntimeError: out of memory: a group needs its own size while it is moved.
    """
    joined = 0
    for module in model.modules():
        for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
            parts = [getattr(module, name, None) for name in names]
            layers = [getattr(part, "base_layer", part) for part in parts]
            if any(not is_plain_linear(layer) or layer.weight.is_meta for layer in layers):
                continue
            weights: list[nn.Parameter] = [layer.weight for layer in layers]  # type: ignore[union-attr]
            alike = {(weight.dtype, weight.device, weight.shape[1]) for weight in weights}
            if len(alike) > 1 or _contiguous_view([weight.detach() for weight in weights]) is not None:
                continue
            buffer = torch.cat([weight.detach() for weight in weights])
            start = 0
            for weight in weights:
                weight.data = buffer[start : start + len(weight)]
                start += len(weight)
            joined += 1
    return joined
