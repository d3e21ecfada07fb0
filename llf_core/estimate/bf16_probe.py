"""The cached speedup of bfloat16 on this CPU, read without torch."""

from __future__ import annotations

import functools
import os
from importlib import metadata
from typing import TYPE_CHECKING, TypeGuard

from llf_core.launch.cgroup import usable_cpus
from llf_core.launch.environment import cpu_name
from llf_core.runs import home
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from pathlib import Path

MIN_SPEEDUP = 1.1
"""Speedup from which a run computes in bfloat16; chosen by hand."""
MOST_SPEEDUP = 1000.0
MOST_DIGITS = 6
"""Larger numbers of threads or of a GPU are invalid."""


@functools.cache
def cores() -> int:
    """Number of cores that this process may use, read once."""
    return usable_cpus()


def default_threads() -> int:
    """Compute threads of a run that sets none: `OMP_NUM_THREADS`, else the cores that this process may use."""
    value = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    threads = int(value) if value.isascii() and value.isdecimal() and len(value) <= MOST_DIGITS else 0
    return threads or cores()


def probe_file() -> Path:
    """File of the measurements of `llf_core.models.device`."""
    return home() / "cache" / "probe.json"


@functools.cache
def probe_key(flags: str, threads: int) -> str:
    """Key of a measurement: CPU, instructions that torch uses (such as `AVX512`), torch's version, threads."""
    return f"{cpu_name()} | {flags} | torch {metadata.version('torch')} | {threads} threads"


def cached_speedup(threads: int) -> float | None:
    """Speedup of bfloat16 over float32 as a run has measured it on this CPU with this torch and as many threads."""
    try:
        begin, _, end = probe_key("\0", threads).partition("\0")
    except metadata.PackageNotFoundError:
        return None
    for key, value in read_object_or_empty(probe_file()).items():
        if key.startswith(begin) and key.endswith(end) and is_speedup(value):
            return float(value)
    return None


def is_speedup(value: object) -> TypeGuard[float]:
    """Whether a stored value is a plausible speedup."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < MOST_SPEEDUP
