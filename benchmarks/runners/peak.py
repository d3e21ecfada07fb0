"""The device's bfloat16 matrix products: `DEVICE OUT.json`. The median of several products of random numbers."""

import json
import statistics
import sys
import time
from pathlib import Path

import torch

SIZES, WARM, TIMES = {"cuda": (4096, 8192), "cpu": (512,)}, 3, 10


def seconds(size: int, device: str) -> list[float]:
    """Seconds of products of two square matrices, after some that are not counted."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    found = []
    for _ in range(WARM + TIMES):
        wait()
        start = time.perf_counter()
        a @ b
        wait()
        found.append(time.perf_counter() - start)
    return found[WARM:]


if __name__ == "__main__":
    device, out = sys.argv[1:]
    rates = {size: 2 * size**3 / statistics.median(seconds(size, device)) for size in SIZES[device]}
    card: dict[str, object] = {"name": "the CPU"}
    if device == "cuda":
        facts = torch.cuda.get_device_properties(0)
        card = {"name": facts.name, "memory": facts.total_memory, "processors": facts.multi_processor_count}
        card |= {"capability": f"{facts.major}.{facts.minor}", "cuda": torch.version.cuda}
    made = {"card": card, "tflops": round(max(rates.values()) / 1e12, 3)}
    Path(out).write_text(json.dumps(made | {"by_size": {str(size): rate / 1e12 for size, rate in rates.items()}}))
