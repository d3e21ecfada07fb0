from __future__ import annotations

import psutil

from llf_core.launch.cgroup import Cgroup

MEMORY_SHARE = 0.9
"""Share of the free memory that a forecast, which is inexact, may fill."""


def available_memory(cgroup: Cgroup | None = None) -> int:
    """Bytes that this process can still allocate without swapping and within its container's limit."""
    free = int(psutil.virtual_memory().available)
    room = (cgroup or Cgroup()).memory_left()
    return free if room is None else max(0, min(free, room))
