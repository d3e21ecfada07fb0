from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch.autograd import Function

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.acceleration.kernels.context import Context


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
