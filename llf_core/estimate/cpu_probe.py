"""Speed of this CPU without torch, from which the first forecast of time is made."""

from __future__ import annotations

import functools
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from llf_core.launch.environment import cpu_name
from llf_core.runs import home
from llf_core.runs.files import json_bytes, replace_file
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 64
"""Rows of the multiplied matrices, so few that one thread multiplies them."""
MOST = 1e14
"""Operations a second that no thread reaches: such a number in the file is a sign of damage, and counts as none."""
SECONDS, AGAIN_SECONDS = 0.05, 0.01
"""How long an operation is timed: the first time on a machine, and by each later process."""
VALUES = 256 * 1536
"""Values of the added arrays: those of a small model's activations, which a core's own cache holds."""


@functools.cache
def thread_flops() -> float:
    """Floating-point operations a second of float32 products in one thread of this CPU, the fastest that was seen.

    Products of matrices `[64, 64]` are timed, since threads that wait for each other would make larger ones a hundred
    times slower on a busy machine. The fastest are kept in `LLF_HOME/cache/cpu_speed.json`.
    """
    generator = np.random.default_rng(0)
    left, right = (generator.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in range(2))
    result = np.empty_like(left)
    return _fastest("products", 2 * SIZE**3, lambda: np.matmul(left, right, out=result))


@functools.cache
def cpu_values() -> float:
    """Float32 values a second that one thread adds on this CPU, the fastest that was seen.

    What is not a product in a step, such as norms and activation functions, is bound by this speed: that of caches.
    The fastest is kept in `LLF_HOME/cache/cpu_speed.json`.
    """
    left, right, result = (np.ones(VALUES, np.float32) for _ in range(3))
    return _fastest("sums", VALUES, lambda: np.add(left, right, out=result))


def _fastest(name: str, amount: int, operate: Callable[[], object]) -> float:
    """How much of an operation is done a second, the fastest that was seen on this machine, kept in `LLF_HOME/cache`.

    Each process measures once, in 0.05 s or, where an earlier one has, in 0.01 s; what other processes use at that
    moment does not lower it.
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
    """Seconds of the fastest call in a duration in seconds, so that a busy moment does not decide."""
    best, until = float("inf"), time.perf_counter() + duration
    while time.perf_counter() < until or math.isinf(best):
        began = time.perf_counter()
        operate()
        best = min(best, time.perf_counter() - began)
    return best
