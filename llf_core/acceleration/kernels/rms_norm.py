"""RMS norm with a hand-written backward, which reads the memory once less than autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch.autograd import Function

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.acceleration.kernels.context import Context

    class _Context(Context, Protocol):
        offset: float


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        exact = _wide(x)
        norm = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = exact * inverse if exact is x else exact.mul_(inverse)
        result = normed.mul_(_wide(weight) + offset).to(x.dtype) if offset else normed.to(x.dtype) * weight
        ctx.save_for_backward(x, weight, inverse)
        ctx.offset = offset
        return result

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
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
