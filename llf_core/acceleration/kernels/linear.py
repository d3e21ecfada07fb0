"""Frozen linear layers that share an input, with or without LoRA, quantized or not.

The products with the base weights are unchanged. The LoRA parts are combined: one product with all `A` matrices of the
group, and sums inside the products (`addmm`), so that no intermediate of the output's size is written. The backward
pass is hand-written: it stores the input and `x Aᵀ`, and dequantizes a 4-bit base again.

RMS norm with a hand-written backward, which reads the memory once less than autograd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch.autograd import Function

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitsandbytes.functional import QuantState
    from torch import Tensor

    from llf_core.acceleration.kernels.context import Context

    class _LinearContext(Context, Protocol):
        operands: tuple[Operand, ...]
        shape: torch.Size
        ranks: list[int]
        dtype: torch.dtype

    class _NormContext(Context, Protocol):
        offset: float


@dataclass(frozen=True)
class Operand:
    """A frozen linear layer and its adapter.

    Attributes:
        weight: `[out, in]`; packed by bitsandbytes in 4 bits `[out * in / 2, 1]`, uint8.
        bias: `[out]` or None; frozen.
        quant_state: bitsandbytes' state of a 4-bit weight.
        transposed: whether a weight without `quant_state` is stored as `[in, out]` (GPT-2's Conv1D).
        adapter: `(A [rank, in], B [out, rank])` or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    quant_state: QuantState | None = None
    transposed: bool = False
    adapter: tuple[Tensor, Tensor] | None = None
    scale: float = 1.0

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """The weight as `[out, in]` in the compute dtype; a 4-bit weight is dequantized for each product."""
        if self.quant_state is not None:
            from bitsandbytes.functional import dequantize_4bit

            whole: Tensor = dequantize_4bit(self.weight, self.quant_state)
            return whole.to(dtype)
        weight = self.weight.to(dtype)
        return weight.t() if self.transposed else weight


class _Linears(Function):
    @staticmethod
    def forward(ctx: _LinearContext, x: Tensor, operands: tuple[Operand, ...], *adapters: Tensor) -> tuple[Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1])
        ranks = [a.shape[0] for a in adapters[::2]]
        inners: list[Tensor] = []
        stacked, factors = None, [b.to(x.dtype) for b in adapters[1::2]]
        if ranks:
            stacked = torch.cat(adapters[::2]).to(x.dtype)
            inners = list(torch.split(flat @ stacked.t(), ranks, 1))
        outputs, at = [], 0
        for operand in operands:
            weight = operand.matrix(x.dtype).t()
            output = flat @ weight if operand.bias is None else torch.addmm(operand.bias.to(x.dtype), flat, weight)
            if operand.adapter is not None:
                output.addmm_(inners[at], factors[at].t(), alpha=operand.scale)
                at += 1
            # Not a view of another tensor: a model may change its layers' outputs in place.
            outputs.append(torch.ops.aten._unsafe_view(output, (*x.shape[:-1], output.shape[-1])))
        ctx.save_for_backward(flat, stacked, *inners, *factors)
        ctx.operands, ctx.shape, ctx.ranks = operands, x.shape, ranks
        ctx.dtype = adapters[0].dtype if adapters else x.dtype
        return tuple(outputs)

    @staticmethod
    def backward(ctx: _LinearContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, stacked, *rest = ctx.saved_tensors
        count = len(ctx.ranks)
        inners, factors = rest[:count], rest[count:]
        grad_x, results = None, []
        grad_inner = None if stacked is None else flat.new_empty(flat.shape[0], stacked.shape[0])
        parts = [] if grad_inner is None else list(torch.split(grad_inner, ctx.ranks, 1))
        at = 0
        for operand, whole in zip(ctx.operands, grads, strict=True):
            grad = whole.reshape(-1, whole.shape[-1]).to(flat.dtype)
            if ctx.needs_input_grad[0]:
                weight = operand.matrix(flat.dtype)
                grad_x = grad @ weight if grad_x is None else grad_x.addmm_(grad, weight)
            if operand.adapter is not None:
                torch.addmm(parts[at], grad, factors[at], beta=0, alpha=operand.scale, out=parts[at])
                grad_factor = (inners[at].t() @ grad).t().to(ctx.dtype, memory_format=torch.contiguous_format)
                results += [None, grad_factor.mul_(operand.scale)]
                at += 1
        if grad_inner is not None and stacked is not None:
            results[::2] = torch.split((grad_inner.t() @ flat).to(ctx.dtype), ctx.ranks)
            if grad_x is not None:
                grad_x.addmm_(grad_inner, stacked)
        return (None if grad_x is None else grad_x.view(ctx.shape), None, *results)


def linears(x: Tensor, operands: Sequence[Operand]) -> tuple[Tensor, ...]:
    """Apply several frozen linear layers with their adapters to `x` `[..., in]`, whose dtype is the compute dtype.

    Returns:
        `[..., out]` for each layer: `y = x Wᵀ + b + scale * (x Aᵀ) Bᵀ` (LoRA, arXiv 2106.09685, equation 3).
    """
    adapters = [tensor for operand in operands if operand.adapter is not None for tensor in operand.adapter]
    outputs: tuple[Tensor, ...] = _Linears.apply(x, tuple(operands), *adapters)
    return outputs


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Context, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grads
        gate, up = ctx.saved_tensors
        grad_up = F.silu(gate).mul_(grad)
        return torch.ops.aten.silu_backward(grad * up, gate), grad_up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up` of tensors `[..., inner]` (SwiGLU, arXiv 2002.05202, eq. 5); stores only `gate` and `up`."""
    result: Tensor = _SwiGLU.apply(gate, up)
    return result


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: _NormContext, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        exact = _wide(x)
        norm = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = exact * inverse if exact is x else exact.mul_(inverse)
        result = normed.mul_(_wide(weight) + offset).to(x.dtype) if offset else normed.to(x.dtype) * weight
        ctx.save_for_backward(x, weight, inverse)
        ctx.offset = offset
        return result

    @staticmethod
    def backward(ctx: _NormContext, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight, inverse = ctx.saved_tensors
        exact, inner = _wide(x), _wide(grad)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            normed = exact * inverse
            if not ctx.offset:
                normed = _wide(normed.to(x.dtype))
            flat = (inner * normed).reshape(-1, x.shape[-1])
            grad_weight = flat.sum(0).to(weight.dtype)
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None, None
        inner = inner * (_wide(weight) + ctx.offset)
        along = torch.linalg.vecdot(inner, exact)[..., None].mul_(inverse * inverse).div_(-x.shape[-1])
        inner.addcmul_(exact, along).mul_(inverse)
        return inner.to(x.dtype), grad_weight, None, None


def rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float = 0.0) -> Tensor:
    """Normalize each row by its root mean square: `x / sqrt(mean(x²) + eps) * (offset + weight)`.

    arXiv 1910.07467, equation 4. Statistics and gradients are float32 (float64 for float64).

    Args:
        x: `[..., hidden]`.
        weight: `[hidden]`.
        offset: 1 for Gemma, which stores its weights minus 1. The product is then rounded once, after the weight, as in
            Gemma's module.

    Returns:
        `[..., hidden]`, in the dtype of `x` with an offset, else in the promoted dtype of `x` and `weight`.
    """
    result: Tensor = _RMSNorm.apply(x, weight, eps, offset)
    return result
