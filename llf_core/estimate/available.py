"""Memory that is available to this process."""

from __future__ import annotations

import psutil

from llf_core.launch.cgroup import Cgroup

MEMORY_SHARE = 0.9
"""Share of the free memory that a forecast may fill, since forecasts are inexact."""


def available_memory(cgroup: Cgroup | None = None) -> int:
    """Bytes that this process can still allocate without swapping and within its container's limit.

    The smaller of both counts: in a container, the host's free memory says nothing about when the process is killed.

    Args:
        cgroup: control groups to query; None for those of this process.
    """
    free = int(psutil.virtual_memory().available)
    room = (cgroup or Cgroup()).memory_left()
    return free if room is None else max(0, min(free, room))
