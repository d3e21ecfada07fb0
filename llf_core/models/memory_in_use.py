from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def memory_in_use(device: torch.device) -> int:
    """Memory of this process in bytes: peak allocated on CUDA, else its resident set (the peak of it without /proc)."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - read once a logged step
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
