"""Benchmark of bfloat16 against float32 on this CPU."""

from __future__ import annotations

import time
from contextlib import suppress

from llf_core.estimate.bf16_probe import is_speedup, probe_file, probe_key
from llf_core.runs.files import json_bytes, replace_file
from llf_core.untrusted import read_object_or_empty

MATRIX_SIZE = 512
ROUNDS = 7


def bf16_speedup(threads: int) -> float:
    """Float32 time of a matrix product divided by its bfloat16 time, rounded to two digits.

    On CPUs without bfloat16 instructions it is often below 1. It is measured once per CPU, torch version and number of
    compute threads, and kept in `cache/probe.json`.
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
    """Best float32 time of a 512 x 512 matrix product divided by the best bfloat16 time. Takes about 50 ms."""
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
