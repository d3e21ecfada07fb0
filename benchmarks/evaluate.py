"""Likelihood of a data set's answers: tokens a second of `llf eval` against a plain loop with transformers at its best.

    python -m benchmarks.evaluate [--rounds 3] [--examples 96] [--data llf_demo] [--threads 2] [--json FILE]

The plain loop reads the same token ids, sorted by length and padded, in the fastest of some batch sizes, and upcasts
the logits of the measured positions alone. Both measure the embedded model in float32, in turns. The ratio of a round
is made of runs beside each other. Their losses must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.results import circumstances

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.evaluation.examples import TokenizedPart

MODEL = "smollm2-135m-instruct"
BATCHES = (1, 4, 16)
RESULTS = Path(__file__).parent / "results" / "evaluate.json"


def plain(model: Any, parts: list[TokenizedPart], batch: int) -> float:
    """Sum of the losses, by transformers alone."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.nn.utils.rnn import pad_sequence

    total = 0.0
    ordered = sorted(parts, key=lambda part: -len(part.ids))
    with torch.inference_mode():
        for start in range(0, len(ordered), batch):
            rows = ordered[start : start + batch]
            ids = pad_sequence([torch.tensor(part.ids) for part in rows], batch_first=True)
            labels = pad_sequence([torch.tensor(part.labels) for part in rows], batch_first=True, padding_value=-100)
            mask = pad_sequence([torch.ones(len(part.ids), dtype=torch.int64) for part in rows], batch_first=True)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            kept = labels[:, 1:] != -100
            total += cross_entropy(logits[kept].float(), labels[:, 1:][kept], reduction="sum").item()
    return total


def timed(measure: Callable[[], float]) -> tuple[float, float]:
    """Seconds and result."""
    started = time.perf_counter()
    found = measure()
    return time.perf_counter() - started, found


def main() -> None:
    """Measures, prints a line for each round, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=96)
    parser.add_argument("--data", default="llf_demo")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llf_core.acceleration.patching.causal_head import install_head
    from llf_core.config import RunConfig
    from llf_core.evaluation.examples import read_examples
    from llf_core.evaluation.likelihood import measure_losses
    from llf_core.models import resolve_model

    torch.set_num_threads(args.threads)
    folder = resolve_model(MODEL, RunConfig.load({"model_name_or_path": MODEL, "dataset": args.data})).path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    examples = read_examples([args.data], tokenizer, None, limit=args.examples).examples
    parts = [part for one in examples for part in one.parts]
    tokens = sum(len(part.ids) for part in parts)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    install_head(own)

    def ours() -> float:
        return sum(sum(one.losses) for one in measure_losses(own, parts, lambda _: None))

    batch = min(BATCHES, key=lambda size: timed(lambda: plain(theirs, parts, size))[0])
    ours()
    rounds = []
    for number in range(args.rounds):
        (slow, expected), (fast, found) = timed(lambda: plain(theirs, parts, batch)), timed(ours)
        if abs(found / expected - 1) > 1e-5:
            raise SystemExit(f"The losses differ: {found} and {expected}.")
        rounds.append({"transformers_s": slow, "llf_s": fast, "ratio": slow / fast})
        print(
            f"round {number + 1}: transformers (batch {batch}) {tokens / slow:,.0f} tokens/s, "
            f"llf {tokens / fast:,.0f} tokens/s, ratio {slow / fast:.2f}",
            flush=True,
        )
    ratio = statistics.median(one["ratio"] for one in rounds)
    print(f"median ratio {ratio:.2f}, {len(parts)} sequences, {tokens:,} tokens")
    result = {"format": 1, "ratio": ratio, "batch": batch, "tokens": tokens, "threads": args.threads, "rounds": rounds}
    args.json.write_text(json.dumps(circumstances() | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
