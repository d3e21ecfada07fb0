"""Speed of matrix products on this machine, from which the first forecast of time is made."""

from __future__ import annotations

import functools
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from llf_core.launch.cgroup import usable_cpus
from llf_core.launch.environment import cpu_name
from llf_core.runs import home
from llf_core.runs.files import json_bytes, replace_file
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from llf_core.estimate.devices import Device

SIZE, SECONDS = 64, 0.05
"""Rows of the matrices, so few that one thread multiplies them, and how long they are timed."""
GPU_FLOPS: tuple[tuple[str, float], ...] = (
    ("B200", 2250e12), ("GH200", 989e12), ("H200", 989e12), ("H100 PCIe", 756e12), ("H100", 989e12), ("H800", 989e12),
    ("A100", 312e12), ("A800", 312e12), ("A40", 150e12), ("A30", 165e12), ("A10", 125e12), ("L40S", 362e12),
    ("L40", 181e12), ("L4", 121e12), ("V100", 125e12), ("T4", 65e12), ("RTX 5090", 210e12), ("RTX 4090", 165e12),
    ("RTX 3090", 71e12), ("RTX A6000", 155e12), ("RTX 6000 Ada", 364e12),
)  # fmt: skip
"""Dense products a second in half precision, from the data sheets of NVIDIA; the first name that fits counts."""
OTHER_GPU = 50e12
"""The same of a GPU that is not listed, on the safe side: less than any that is."""
APPLE = 4e12
"""The same of the GPU of an Apple processor, a rough value for all of them; the first run corrects it."""
GPU_SHARE = 0.4
"""Share of the data sheet's speed that training reaches on a GPU.

arXiv 2205.05198, table 5, reports 0.42 to 0.56 for models of 22 to 1,000 billion parameters; smaller ones reach less.
"""


def products_per_second(device: Device) -> tuple[float, str]:
    """Floating-point operations a second of matrix products on a device, as far as they are known before a run.

    Args:
        device: the device.

    Returns:
        The number: on a CPU the fastest float32 products, of which `step_time.CPU_SHARE` remains in a step; elsewhere
        what training reaches in half precision. And where it comes from, as a part of a sentence.

    Raises:
        OSError: too many files are open.
        HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
    """
    if device.kind == "cpu":
        return cpu_flops(), "matrix products timed on this CPU"
    if device.kind == "mps":
        return APPLE * GPU_SHARE, "the usual speed of an Apple GPU"
    for name, flops in GPU_FLOPS:
        if name.lower() in device.name.lower():
            return flops * GPU_SHARE, f"the data sheet of {device.name}"
    return OTHER_GPU * GPU_SHARE, "the speed of a usual GPU, since this one is not known"


@functools.cache
def cpu_flops() -> float:
    """Floating-point operations a second of float32 products on this CPU, the fastest that was seen.

    Each process measures once, in 0.05 s; what other processes use at that moment does not lower it, since the
    fastest measurement of this machine is kept in `LLF_HOME/cache/matmul.json`.

    Raises:
        HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
        OSError: too many files are open.
    """
    path = home() / "cache" / "matmul.json"
    key = f"{cpu_name()} | numpy {np.__version__} | {usable_cpus()} threads"
    known = read_object_or_empty(path)
    before, measured = known.get(key), time_products()
    if isinstance(before, int | float) and before >= measured:
        return float(before)
    with suppress(OSError):  # a disk that is full: it is measured again
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json_bytes({**known, key: round(measured)}))
    return measured


def time_products() -> float:
    """Time products of float32 matrices `[64, 64]` for 0.05 s, so that a busy moment does not decide.

    Threads that wait for each other would make larger products a hundred times slower on a busy machine; so one
    thread is timed.

    Returns:
        Floating-point operations a second of the fastest product, times the number of threads of a run.
    """
    generator = np.random.default_rng(0)
    left, right = (generator.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until or math.isinf(best):
        began = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - began)
    return usable_cpus() * 2 * SIZE**3 / best
