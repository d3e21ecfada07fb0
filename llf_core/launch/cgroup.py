"""Container limits from Linux control groups (v1 and v2): CPU quota, memory, out-of-memory kills."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from llf_core.untrusted import leads_to_folder

UNLIMITED = 2**60  # bytes; version 1 writes a huge number where there is no limit


@dataclass(frozen=True)
class Cgroup:
    """The control groups of a process, listed in the file `own`."""

    root: Path = Path("/sys/fs/cgroup")
    own: Path = Path("/proc/self/cgroup")

    def cpu_quota(self) -> float | None:
        """The lowest CPU limit (quota / period) of the process's group and its parents, in CPUs; None without one."""
        limits = []
        for folder in self._folders("cpu"):
            limit = _ratio(_words(folder / "cpu.max")) or _ratio(
                _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
            )
            if limit is not None:
                limits.append(limit)
        return min(limits, default=None)

    def memory_limit(self) -> int | None:
        """The lowest memory limit of the process's group and its parents, in bytes; None without one."""
        limits = []
        for folder in self._folders("memory"):
            for name in ("memory.max", "memory.limit_in_bytes"):
                words = _words(folder / name)
                if words and words[0].isdigit() and int(words[0]) < UNLIMITED:
                    limits.append(int(words[0]))
        return min(limits, default=None)

    def memory_left(self) -> int | None:
        """Bytes left before the nearest limit, counting file caches as free; None without a limit."""
        rooms = []
        for folder in self._folders("memory"):
            for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
                most, now = _words(folder / limit), _words(folder / used)
                if most and now and most[0].isdigit() and int(most[0]) < UNLIMITED:
                    words = _words(folder / "memory.stat")
                    # The kernel drops these pages before it kills anybody.
                    names = [name for name in ("total_inactive_file", "inactive_file") if name in words]
                    cached = int(words[words.index(names[0]) + 1]) if names else 0
                    rooms.append(int(most[0]) - int(now[0]) + cached)
        return min(rooms, default=None)

    def oom_kills(self) -> int:
        """Number of processes of this group that the OOM killer has ended; 0 if the kernel does not count them."""
        for folder in self._folders("memory"):
            for name in ("memory.events", "memory.oom_control"):
                words = _words(folder / name)
                if "oom_kill" in words:
                    return int(words[words.index("oom_kill") + 1])
        return 0

    def _folders(self, controller: str) -> list[Path]:
        try:
            lines = self.own.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except OSError:  # no Linux, or a container that hides its groups
            return []
        found: list[Path] = []
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if not controllers:
                bases = [self.root, self.root / "unified"]
            elif controller in controllers.split(","):
                bases = [self.root / controllers, self.root / controller]
            else:
                continue
            for base in bases:
                nearest = base / path.lstrip("/")
                # In a container the path may be the host's, while the mount shows the container's group.
                parts = [nearest, *nearest.parents] if leads_to_folder(nearest) else [base]
                found += [part for part in parts if part == base or base in part.parents]
        return list(dict.fromkeys(part for part in found if leads_to_folder(part)))


def usable_cpus(cgroup: Cgroup | None = None) -> int:
    """Number of threads that can run in parallel: the minimum of CPU affinity and quota (rounded down), at least 1."""
    # macOS has no affinity.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = (cgroup or Cgroup()).cpu_quota()
    return max(1, count if quota is None else min(count, int(quota)))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").split()
    except OSError:  # not there, or not ours to read
        return []


def _ratio(words: list[str]) -> float | None:
    """Quota divided by period, both in µs; None if the quota is `max` or -1."""
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:  # noqa: PLR2004 - two
        return None
    return int(words[0]) / int(words[1])
