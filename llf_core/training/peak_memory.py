"""Peak memory of the training steps, for the comparison with its forecast."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from llf_core.estimate.planned_step import CUDA_CONTEXT

_RESET_PEAK = "5"
"""Resets the peak of the resident set, see proc(5), `/proc/pid/clear_refs`."""


def reset_peak(device: str) -> None:
    """Reset the peak memory of `cuda`, `mps` or `cpu` if the system can, so that loading the model does not count."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # not Linux, or forbidden: the peak of the whole process counts
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")


def peak_memory(device: str) -> int:
    """Peak bytes since `reset_peak` (else since the process began): reserved memory and context, or resident set."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved() + CUDA_CONTEXT
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
