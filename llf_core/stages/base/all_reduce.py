"""Sums over the processes that train together."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist


def sum_over_ranks(own: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all ranks (all-reduce), so that a mean over processes with unequal batches is exact.

    All ranks must call it: one that does not keeps the others waiting.

    Args:
        own: tensor of this process, any shape, the same shape in all processes; not changed.

    Returns:
        The sum, of the shape of `own` and on its device, detached. With one process, `own` detached.

    Raises:
        RuntimeError: another process has ended, or tensors of other shapes or dtypes were given there.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return own.detach()
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if dist.get_backend() == "nccl" else "cpu"
    whole = own.detach().to(device, copy=True)
    dist.all_reduce(whole)
    return whole.to(own.device)
