"""Starts what is measured, in a process of its own, and watches its memory from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[1]
LOOK_SECONDS = 0.1
TUNED = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_NUM", "RAYON_", "ONEDNN_", "LRU_CACHE_"),
    *("MALLOC_", "GLIBC_", "THP_", "LD_PRELOAD"),
)


@dataclass(frozen=True)
class Done:
    """A process that has ended.

    Attributes:
        began: when it was started, Unix seconds.
        peak_bytes: sum of the peaks (VmHWM) of all its processes.
    """

    began: float
    seconds: float
    peak_bytes: int


def plain_environment() -> dict[str, str]:
    """This process's environment without what tunes threads and memory: what a user of the contender has.

    No hub is asked for anything, and no tracker either.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(TUNED)}
    return kept | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def our_environment(home: Path) -> dict[str, str]:
    """The environment in which LLF starts its own trainer, with `home` for `LLF_HOME`."""
    from llf_core.launch.environment import usable_cpus
    from llf_core.launch.local_process import computing_environment

    return computing_environment(plain_environment() | {"LLF_HOME": str(home)}, usable_cpus())


def module(name: str, *arguments: object, python: str | Path = sys.executable) -> list[str]:
    """The command of a module of this folder; `-P` keeps its files from being taken for libraries."""
    return [str(python), "-P", "-m", name, *map(str, arguments)]


def run(command: Sequence[str], environment: Mapping[str, str], log: Path, timeout: float | None = None) -> Done:
    """Runs a command to its end.

    Args:
        timeout: seconds after which it is ended with all that it started; None for never.

    Raises:
        RuntimeError: it failed; the end of its log is the message.
        TimeoutError: it took longer.
    """
    began, start = time.time(), time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(
            list(command), env=dict(environment), stdout=file, stderr=file, stdin=subprocess.DEVNULL
        )
        peaks: dict[int, int] = {}
        while process.poll() is None:
            peaks |= memory_peaks(process.pid)
            if timeout is not None and time.perf_counter() - start > timeout:
                kill_family(process)
                raise TimeoutError(f"It took longer than {timeout:.0f} s, and was ended.")
            time.sleep(LOOK_SECONDS)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return Done(began, seconds, sum(peaks.values()))


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and all below it, and waits for it."""
    with suppress(psutil.NoSuchProcess):
        for one in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                one.kill()
    process.kill()
    process.wait()


def memory_peaks(pid: int) -> dict[int, int]:
    """The highest resident set so far of a process and of each of its children, in bytes, by pid."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return {}
    found: dict[int, int] = {}
    for one in family:
        try:
            lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        for line in lines:
            if line.startswith("VmHWM:"):
                found[one.pid] = 1024 * int(line.split()[1])
    return found
