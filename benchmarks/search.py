"""A contender's best batch and accumulation: each candidate trains on the same rows, in turns; the fastest is kept."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.contender import settings_file, train

if TYPE_CHECKING:
    from benchmarks.contender import Bench

BATCH, ACCUMULATION = "per_device_train_batch_size", "gradient_accumulation_steps"
CANDIDATES = {
    "llamafactory": ("llamafactory-best", [(1, 1), (1, 2), (1, 3), (1, 4)]),
    "trl": ("trl", [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2)]),
    "llamafactory-dpo": ("llamafactory-dpo-best", [(1, 4), (2, 2), (4, 1)]),
    "trl-dpo": ("trl-dpo", [(1, 4), (2, 2), (4, 1)]),
}
# LLF makes as many rows a step as LLaMA-Factory's best, so that the two differ in nothing but speed.
FOLLOWS = {"llamafactory-best": ("llf-packed",), "trl-dpo": ("trl-dpo-precomputed",)}
ROWS_LEFT_OUT = 3  # packed rows: one step of the smallest candidates is no more than that


def rate(run: dict[str, Any], rows_a_step: int) -> float:
    """Real tokens a second after the first packed rows."""
    steps = run["steps"][-(-ROWS_LEFT_OUT // rows_a_step) :]
    return float(sum(step[1] for step in steps) / sum(step[0] for step in steps))


def find(which: str, bench: Bench, rounds: int) -> None:
    """Measures the candidates, prints them, and writes the best to the contender's file."""
    name, candidates = CANDIDATES[which]
    rates: dict[tuple[int, int], list[float]] = {one: [] for one in candidates}
    for number in range(rounds):
        for batch, accumulation in candidates[number % len(candidates) :] + candidates[: number % len(candidates)]:
            run = train(name, bench, {BATCH: batch, ACCUMULATION: accumulation})
            rates[batch, accumulation].append(rate(run, batch * accumulation))
            print(
                f"  batch {batch}, accumulation {accumulation}: {rates[batch, accumulation][-1]:.0f} tokens/s",
                flush=True,
            )
    medians = {one: statistics.median(found) for one, found in rates.items()}
    best = max(medians, key=lambda one: medians[one])
    for (batch, accumulation), median in medians.items():
        print(f"batch {batch}, accumulation {accumulation}: median {median:.0f} tokens/s")
    for file in (name, *FOLLOWS.get(name, ())):
        keep(file, *best)
    print(f"Kept batch {best[0]}, accumulation {best[1]}.")


def keep(name: str, batch: int, accumulation: int) -> None:
    """Writes two numbers into a settings file and leaves everything else as it is."""
    file = settings_file(name)
    text = re.sub(rf"({BATCH}): \d+", rf"\1: {batch}", file.read_text())
    file.write_text(re.sub(rf"({ACCUMULATION}): \d+", rf"\1: {accumulation}", text))
