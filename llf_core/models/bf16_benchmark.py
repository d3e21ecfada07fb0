"""Is bfloat16 faster than float32 on this CPU? Timed once, then remembered."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from llf_core.launch.environment import cpu_name
from llf_core.runs import home
from llf_core.runs.files import json_bytes, replace_file

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 512
ROUNDS = 7
WORTH = 1.1


def bf16_speedup(threads: int) -> float:
    """How many times faster a bfloat16 matrix product is than a float32 one, from `cache/probe.json` or timed anew.

    Args:
        threads: threads that compute; part of the key, since chips slow down differently.
    """
    import torch

    path = home() / "cache" / "probe.json"
    flags = torch.backends.cpu.get_cpu_capability()
    key = f"{cpu_name()} | {flags} | torch {torch.__version__} | {threads} threads"
    known = _read(path)
    if key not in known:
        known[key] = round(time_bf16(), 2)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json_bytes(known))
    return known[key]


def time_bf16() -> float:
    """Times products of 512 x 512 matrices; takes about 50 ms.

    Returns:
        Best float32 time over best bfloat16 time; the best of seven each, in turns, so that a busy moment does
        not decide.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(SIDE, SIDE, generator=generator) for _ in range(2))
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
    except (FileNotFoundError, ValueError):
        return {}  # a cache: what cannot be read is measured again
    if not isinstance(value, dict):
        return {}
    return {key: speed for key, speed in value.items() if isinstance(speed, int | float)}
