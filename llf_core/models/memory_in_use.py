"""The memory that a process with a model uses."""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def memory_in_use(device: torch.device) -> int:
    """Memory of this process in bytes, for the metric `memory` of a run and the state of a chat.

    Args:
        device: the model's device; a machine may have a GPU that the process does not use.

    Returns:
        Peak allocated memory on CUDA, else the resident set of this process (its peak without /proc).
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - read once a logged step
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
