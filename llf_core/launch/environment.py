"""`env.json`: versions, device and context of a run. Versions come from package metadata, without imports."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core import __version__
from llf_core.launch.cgroup import Cgroup, usable_cpus
from llf_core.runs import free_bytes, home

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
