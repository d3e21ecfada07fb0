"""Benchmark that decides whether bfloat16 is faster than float32 on this CPU. Runs once; the result is cached."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from llf_core.estimate.bf16_probe import probe_file, probe_key
from llf_core.runs.files import json_bytes, replace_file

if TYPE_CHECKING:
    from pathlib import Path

MATRIX_SIZE = 512
ROUNDS = 7


def bf16_speedup(threads: int) -> float:
    """Speedup of a bfloat16 matrix product over a float32 one on this CPU, by which the precision of a run is chosen.

    On CPUs without bfloat16 instructions it is often slower. The result is cached in `cache/probe.json`, by CPU,
    torch version and number of threads. Compared are the shortest of `ROUNDS` products of matrices of `MATRIX_SIZE`
    rows, in either precision.

    Args:
        threads: number of compute threads; part of the cache key, since the speedup depends on it.

    Returns:
        Time in float32 divided by time in bfloat16, rounded to two digits after the point: above 1 only if bfloat16
        is faster.

    Raises:
        HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
        ModeError: `LLF_HOME_MODE` is not a mode.
        OSError: the cache cannot be read or written.
    """
    import torch

    path, key = probe_file(), probe_key(torch.backends.cpu.get_cpu_capability(), threads)
    known = _read(path)
    if key not in known:
        known[key] = round(time_bf16(), 2)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json_bytes(known))
    return known[key]


def time_bf16() -> float:
    """Time products of 512 x 512 matrices in both dtypes. Takes about 50 ms.

    Seven rounds each, alternating, so that a short load of the machine does not decide.

    Returns:
        Best float32 time divided by best bfloat16 time.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(MATRIX_SIZE, MATRIX_SIZE, generator=generator) for _ in range(2))
    pairs = {dtype: (left.to(dtype), right.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}
    best = dict.fromkeys(pairs, float("inf"))
    for _ in range(ROUNDS):
        for dtype, (a, b) in pairs.items():
            began = time.perf_counter()
            torch.mm(a, b)
            best[dtype] = min(best[dtype], time.perf_counter() - began)
    return best[torch.float32] / best[torch.bfloat16]


def _read(path: Path) -> dict[str, float]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}  # an unreadable cache is measured again
    if not isinstance(value, dict):
        return {}
    return {key: speed for key, speed in value.items() if isinstance(speed, int | float)}
