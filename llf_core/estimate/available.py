"""How much memory this process can still take."""

from __future__ import annotations

import psutil

from llf_core.launch.cgroup import Cgroup


def available_memory(cgroup: Cgroup | None = None) -> int:
    """Bytes that can be taken without swapping and without meeting the container's limit.

    Args:
        cgroup: the control groups to ask; this process's own unless given.
    """
    free = int(psutil.virtual_memory().available)
    room = (cgroup or Cgroup()).memory_left()
    return free if room is None else max(0, min(free, room))
