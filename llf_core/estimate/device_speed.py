"""Speed of this machine's devices, without torch."""

from __future__ import annotations

import functools
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from llf_core.estimate.devices import card_of, cores
from llf_core.launch.environment import cpu_name
from llf_core.runs import home
from llf_core.runs.files import json_bytes, replace_file
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.estimate.devices import Device


OTHER_GPU = 50e12
"""Dense half-precision products a second of a GPU that is not in `cards.toml`: less than any that is."""

APPLE = 4e12
"""The same of the GPU of an Apple processor, roughly."""

GPU_SHARE = 0.4
"""Share of the data sheet's speed that training reaches on a GPU.

arXiv 2205.05198, table 5, reports 0.42 to 0.56 for 22 to 1,000 billion parameters; smaller models reach less.
"""


def products_per_second(device: Device, threads: int) -> tuple[float, str]:
    """Floating-point operations a second of matrix products on a device, and their source as a part of a sentence.

    On a CPU the fastest float32 products, of which `step_time.CPU_SHARE` remains in a step; elsewhere what training
    reaches in half precision.
    """
    if device.kind == "cpu":
        return min(threads, cores()) * thread_flops(), "matrix products timed on this CPU"
    if device.kind == "mps":
        return APPLE * GPU_SHARE, "the usual speed of an Apple GPU"
    if (card := card_of(device)) is not None:
        return card.flops * GPU_SHARE, f"the data sheet of {device.name}"
    return OTHER_GPU * GPU_SHARE, "the speed of a usual GPU, since this one is not known"


SIZE = 64
"""Rows of the multiplied matrices, few enough for one thread."""

MOST = 1e14
"""Operations a second from which a number in the file counts as damaged."""

SECONDS, AGAIN_SECONDS = 0.05, 0.01
"""Seconds for which an operation is timed: the first time on a machine, and in later processes."""

VALUES = 256 * 1536
"""Values of the added arrays, which a core's own cache holds."""


@functools.cache
def thread_flops() -> float:
    """Float32 operations a second of matrix products in one thread, the fastest that was seen, see `_fastest`.

    Matrices are `[64, 64]`: larger ones use threads that wait for each other, a hundred times slower on a busy machine.
    """
    generator = np.random.default_rng(0)
    left, right = (generator.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in range(2))
    result = np.empty_like(left)
    return _fastest("products", 2 * SIZE**3, lambda: np.matmul(left, right, out=result))


@functools.cache
def cpu_values() -> float:
    """Float32 values a second that one thread adds in its cache, the fastest that was seen, see `_fastest`.

    It limits what is not a product in a step, such as norms and activation functions.
    """
    left, right, result = (np.ones(VALUES, np.float32) for _ in range(3))
    return _fastest("sums", VALUES, lambda: np.add(left, right, out=result))


def _fastest(name: str, amount: int, operate: Callable[[], object]) -> float:
    """Amount of an operation a second, the fastest that was seen on this machine, in `LLF_HOME/cache/cpu_speed.json`.

    Each process measures once, so that other processes do not lower it.
    """
    path = home() / "cache" / "cpu_speed.json"
    key = f"{cpu_name()} | numpy {np.__version__} | {name}"
    known = read_object_or_empty(path)
    found = known.get(key)
    before = float(found) if isinstance(found, int | float) and 0 < found < MOST else 0.0
    measured = amount / _least_seconds(operate, AGAIN_SECONDS if before else SECONDS)
    if before >= measured:
        return before
    with suppress(OSError):  # a disk that is full: it is measured again
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json_bytes({**known, key: round(measured)}))
    return measured


def _least_seconds(operate: Callable[[], object], duration: float) -> float:
    """Seconds of the fastest call within a duration."""
    best, until = float("inf"), time.perf_counter() + duration
    while time.perf_counter() < until or math.isinf(best):
        began = time.perf_counter()
        operate()
        best = min(best, time.perf_counter() - began)
    return best
