"""Benchmark that decides whether bfloat16 is faster than float32 on this CPU. Runs once; the result is cached."""

from __future__ import annotations

import time
from contextlib import suppress

from llf_core.estimate.bf16_probe import is_speedup, probe_file, probe_key
from llf_core.runs.files import json_bytes, replace_file
from llf_core.untrusted import read_object_or_empty

MATRIX_SIZE = 512
ROUNDS = 7


def bf16_speedup(threads: int) -> float:
    """Speedup of a bfloat16 matrix product over a float32 one on this CPU, by which the precision of a run is chosen.

    On CPUs without bfloat16 instructions it is often slower. Compared are the shortest of `ROUNDS` products of matrices
    of `MATRIX_SIZE` rows, in either precision. The result is kept in `cache/probe.json`, if that can be written, by
    CPU, torch version and number of threads.

    Args:
        threads: number of compute threads; part of the cache key, since the speedup depends on it.

    Returns:
        Time in float32 divided by time in bfloat16, rounded to two digits after the point: above 1 only if bfloat16
        is faster.
    """
    import torch

    path, key = probe_file(), probe_key(torch.backends.cpu.get_cpu_capability(), threads)
    known = read_object_or_empty(path)
    found = known.get(key)
    if is_speedup(found):
        return float(found)
    measured = round(time_bf16(), 2)
    with suppress(OSError):  # a disk that is full, a home that is not writable: it is measured again
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json_bytes({**known, key: measured}))
    return measured


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
