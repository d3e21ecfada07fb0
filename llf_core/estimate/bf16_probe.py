"""The cached measurement of how fast this CPU multiplies in bfloat16, read without torch."""

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
"""Speedup from which a run computes in bfloat16, chosen by hand."""
MOST_SPEEDUP = 1000.0
MOST_DIGITS = 6
"""A number of threads or of a GPU with more digits is no machine's."""


@functools.cache
def cores() -> int:
    """Number of cores that this process may use. Read once, since a form asks for a forecast after each key press."""
    return usable_cpus()


def default_threads() -> int:
    """Number of compute threads of a run that sets none: `OMP_NUM_THREADS`, else the cores that this process may use.

    A launcher leaves the variable as it is, so that the trainer and a forecast come to the same number.
    """
    value = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    threads = int(value) if value.isascii() and value.isdecimal() and len(value) <= MOST_DIGITS else 0
    return threads or cores()


def probe_file() -> Path:
    """File of the measurements: `llf_core.models.bf16_benchmark` writes it, so that a forecast needs no torch."""
    return home() / "cache" / "probe.json"


@functools.cache
def probe_key(flags: str, threads: int) -> str:
    """Name of a measurement: the CPU, its instructions, torch's version and the number of threads.

    With another value of any of them, the speed has to be measured again.

    Args:
        flags: the instructions that torch uses, such as `AVX512`.
    """
    return f"{cpu_name()} | {flags} | torch {metadata.version('torch')} | {threads} threads"


def cached_speedup(threads: int) -> float | None:
    """Speedup of bfloat16 over float32 as a run has measured it; None before the first one.

    Only a measurement of this CPU with the installed version of torch and as many threads counts.
    """
    try:
        begin, _, end = probe_key("\0", threads).partition("\0")
    except metadata.PackageNotFoundError:
        return None
    for key, value in read_object_or_empty(probe_file()).items():
        if key.startswith(begin) and key.endswith(end) and is_speedup(value):
            return float(value)
    return None


def is_speedup(value: object) -> TypeGuard[float]:
    """Whether a stored value is a speedup that a measurement can have; any other is a sign of a damaged file."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < MOST_SPEEDUP
