"""`env.json`: versions, device and context of a run, and its limits from Linux control groups (v1 and v2)."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core import __version__
from llf_core.runs import free_bytes, home
from llf_core.untrusted import leads_to_folder

if TYPE_CHECKING:
    from llf_core.config import RunConfig


PACKAGES = (
    "torch", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes", "tokenizers",
    "safetensors", "gguf", "numpy", "pyarrow", "pydantic", "jupyter_server", "jupyterlab", "ipykernel",
    "ipywidgets", "anywidget",
)  # fmt: skip
GIT_SECONDS = 1.0


def describe() -> dict[str, Any]:
    """Versions, device and folders, as shown by `llf env` for bug reports."""
    return {
        **_versions(),
        "threads": usable_cpus(),
        "home": str(home()),
        "free": f"{free_bytes() / 1e9:.1f} GB",
    }


def _versions() -> dict[str, object]:
    return {
        "llf": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages(),
        "device": device(),
    }


def start_facts(
    config: RunConfig, notebook: dict[str, str] | None = None, fingerprint: str | None = None
) -> dict[str, Any]:
    """Facts about a run that the launcher knows, for `env.json`."""
    here = Path.cwd()
    return {
        **_versions(),
        "command": [sys.executable, *sys.argv],
        "cwd": str(here),
        "notebook": notebook,
        "git": git_state(here),
        "data": {} if fingerprint is None else {"fingerprint": fingerprint},
        "seed": config.get("seed"),
        "threads": threads_of_config(config),
    }


def threads_of_config(config: RunConfig) -> int:
    """Number of threads of each process of a run on this machine."""
    return config.launch.threads or max(1, usable_cpus() // config.launch.num_processes)


def packages() -> dict[str, str]:
    """Versions of the installed packages that affect training, from package metadata."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def device() -> dict[str, Any]:
    """Type, name, usable cores (`count`) and memory in bytes of the CPU, within the limits of a container.

    The trainer adds the GPU that it uses, see `llf_core.training.resolved_config.cuda_facts`.
    """
    import psutil

    total = psutil.virtual_memory().total
    limit = Cgroup().memory_limit()
    return {
        "type": "cpu",
        "name": cpu_name(),
        "count": usable_cpus(),
        "memory": total if limit is None else min(total, limit),
    }


def gpu_count() -> int | None:
    """Number of NVIDIA GPUs in the driver's list, limited by `CUDA_VISIBLE_DEVICES`; None if there is no list."""
    from llf_core.config.quantizers import has_cuda

    if not has_cuda():
        return 0
    try:
        found = sum(1 for _ in Path("/proc/driver/nvidia/gpus").iterdir())
    except OSError:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if visible is None else min(found, sum(bool(part.strip()) for part in visible.split(",")))


def cpu_name() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of a folder's repository, and whether tracked files are modified (`dirty`); None without a commit or git.

    `dirty` is None if `git status` fails or takes longer than a second, or if the repository's config names programs
    that git would run: it may have come with the notebook.
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        if _names_programs(_git(folder, "config", "--list", "--show-scope", "--includes", "-z")):
            return {"commit": commit, "dirty": None}
    except (FileNotFoundError, subprocess.SubprocessError):
        return None
    try:
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all")
    except (FileNotFoundError, subprocess.SubprocessError):
        return {"commit": commit, "dirty": None}
    return {"commit": commit, "dirty": bool(changed)}


def _names_programs(config: str) -> bool:
    """Whether a repository's config (as listed by git) names programs that `git status` runs."""
    parts = config.split("\0")
    own = [key.lower() for scope, key in zip(parts[::2], parts[1::2], strict=False) if scope in {"local", "worktree"}]
    return any(key.startswith(("filter.", "core.fsmonitor", "core.hookspath")) for key in own)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - fixed words
        ["git", "--no-optional-locks", *arguments],  # noqa: S607 - the user's own git
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # a config may hold names in any encoding
        check=True,
        timeout=GIT_SECONDS,
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
    )
    return done.stdout.strip()


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
