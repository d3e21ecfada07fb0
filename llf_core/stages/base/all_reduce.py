"""Sums over the processes that train together."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist


def sum_over_ranks(own: torch.Tensor) -> torch.Tensor:
    """Adds up a tensor over all processes that train together.

    Args:
        own: of this process, any shape, the same in all of them. It is left as it is.

    Returns:
        The sum on the device of `own`, without a graph; of a process that trains alone, what it gave.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return own.detach()
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if dist.get_backend() == "nccl" else "cpu"
    whole = own.detach().to(device, copy=True)
    dist.all_reduce(whole)
    return whole.to(own.device)
