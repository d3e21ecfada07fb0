"""How many threads this process may keep busy."""

from __future__ import annotations

import math
import os
from pathlib import Path


def granted_cores(root: Path = Path("/")) -> int:
    """CPU cores that the scheduler and the control group grant, at least 1.

    More threads than that make a step several times slower, since they wait for each other.

    Args:
        root: where `proc` and `sys` are; tests give a folder.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(root)
    return max(1, min(affinity, math.ceil(quota) if quota else affinity))


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """Cores that the control group's quota comes to, from cgroup v2 or v1; None where there is no limit."""
    limits = [limit for folder in _groups(root) if (limit := _quota(folder)) is not None]
    return min(limits, default=None)


def _groups(root: Path) -> list[Path]:
    """Folders of this process's group and of those above it: any of them may set the limit."""
    base = root / "sys/fs/cgroup"
    folders = [base, base / "cpu"]
    groups = root / "proc/self/cgroup"
    if groups.is_file():
        for line in groups.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            top = base if not controllers else base / "cpu"
            if not controllers or "cpu" in controllers.split(","):
                own = top / path.lstrip("/")
                folders += [own, *(parent for parent in own.parents if base in parent.parents)]
    return folders


def _quota(folder: Path) -> float | None:
    new, old, period = folder / "cpu.max", folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
    if new.is_file():
        quota, _, length = new.read_text(encoding="utf-8").strip().partition(" ")
        return None if quota == "max" else int(quota) / int(length or 100_000)
    if old.is_file() and period.is_file():
        micro = int(old.read_text(encoding="utf-8"))
        return None if micro <= 0 else micro / int(period.read_text(encoding="utf-8"))
    return None
