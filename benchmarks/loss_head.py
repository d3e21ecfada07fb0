"""The loss head alone, forward and backward: ours against all logits in float32, and against its bare products.

    python benchmarks/loss_head.py [--repeats 5] [--threads 2] [--json FILE]

Each repeat times every way once, in turns; the table has the smallest times. `naive` is what transformers does with
`labels`: logits of all positions, upcast. `products` are the two (trained head: three) matrix products of the learned
positions alone, which nothing that makes all logits of them can undercut.
"""

import argparse
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# As in a trainer, see `llf_core.launch`: without them a step's large tensors are mapped and faulted in anew each time.
SETTINGS = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
SHAPES = ((49_152, 576, 1024), (151_936, 576, 512), (49_152, 2048, 512), (151_936, 2048, 256))
SHARES = (1.0, 0.4)


def ways(shape: tuple[int, int, int], share: float, dtype: Any, *, trained: bool) -> dict[str, Callable[[], None]]:
    """The functions that are compared: name to function."""
    import torch
    from torch.nn import functional

    from llf_core.acceleration.kernels.cross_entropy import nll_sum
    from llf_core.acceleration.patching.causal_head import Head

    vocab, width, rows = shape
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(vocab, width, generator=generator) * width**-0.5).to(dtype).requires_grad_(trained)
    hidden = torch.randn(1, rows, width, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, vocab, (1, rows), generator=generator)
    targets[torch.rand(1, rows, generator=generator) > share] = -100
    learned = hidden.detach()[targets != -100]
    grad = torch.empty(len(learned), vocab, dtype=dtype)

    def step(loss: torch.Tensor) -> None:
        loss.backward()
        hidden.grad = weight.grad = None

    def naive() -> None:
        logits = functional.linear(hidden, weight).float()
        step(functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))

    def products() -> None:
        with torch.no_grad():
            torch.mm(learned, weight.t(), out=grad)
            _ = grad @ weight
            if trained:
                _ = grad.t() @ learned

    return {"naive": naive, "ours": lambda: step(nll_sum(hidden, Head(weight), targets)), "products": products}


def smallest(functions: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Milliseconds of each, the smallest of `repeats` turns."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats + 1):  # the first warms up, and is kept: a minimum does not mind
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            best[name] = min(best[name], (time.perf_counter() - start) * 1e3)
    return best


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of the shapes, smallest first")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    results = []
    cases = itertools.product(SHAPES[: args.shapes], (torch.bfloat16, torch.float32), (False, True), SHARES)
    print(
        "   vocab  width  rows  learned  dtype     head      naive ms  ours ms  products ms  naive/ours  ours/products"
    )
    for shape, dtype, trained, share in cases:
        vocab, width, rows = shape
        times = smallest(ways(shape, share, dtype, trained=trained), args.repeats)
        name, head = str(dtype).removeprefix("torch."), "trained" if trained else "frozen"
        naive, ours, products = times["naive"], times["ours"], times["products"]
        print(
            f"{vocab:8,} {width:6} {rows:5} {share:8.0%}  {name:8}  {head:8} {naive:9.0f} {ours:8.0f} {products:12.0f} "
            f"{naive / ours:11.2f} {ours / products:14.2f}",
            flush=True,
        )
        case = {"vocab": vocab, "width": width, "rows": rows, "learned": share, "dtype": name, "head": head}
        results.append(case | {"milliseconds": times, "ratio": naive / ours})
    if args.json:
        facts = {"torch": torch.__version__, "machine": platform.processor(), "threads": args.threads}
        args.json.write_text(json.dumps(facts | {"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    if any(os.environ.get(name) is None for name in SETTINGS):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | SETTINGS)
    main()
