"""Memory that is available to this process."""

from __future__ import annotations

import psutil

from llf_core.launch.cgroup import Cgroup


def available_memory(cgroup: Cgroup | None = None) -> int:
    """Bytes that can be allocated without swapping and within the container's limit.

    Args:
        cgroup: control groups to query; None for those of this process.
    """
    free = int(psutil.virtual_memory().available)
    room = (cgroup or Cgroup()).memory_left()
    return free if room is None else max(0, min(free, room))
