"""The section of `docs/benchmarks.md` about the memory and the speed of the methods."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.method_claims import NAMES, by_model, claims, cpu_seconds, forecast_error, rest, speed_rounds

READING = """Each row is a trainer's process of its own: one row of 512 tokens a step, gradient checkpointing on, the
same rows for all. `full` and the optimizers train bfloat16 weights (`pure_bf16`), `full-float32` float32 weights with
bfloat16 products, adapters are float32 beside bfloat16 or NF4 weights. Weights, gradients and optimizer state are
counted tensor by tensor, gradients as many as exist at a time. The peak is that of the resident memory while training
(`VmHWM`), Python and its libraries included; activations and the rest are what remains of it. The forecast is the one
that the trainer wrote before its first step. Losses are on held-out rows after the same tokens, with usual learning
rates that were not tuned; of models with random weights they say little. Speed is tokens by processor seconds of the
median step on one thread, since the machine had other work meanwhile."""


def text(result: dict[str, Any]) -> str:
    """The section.

    Args:
        result: content of `results/methods.json`.
    """
    groups = result["groups"]
    parts = ["## Methods: memory, speed and loss", claim_table(groups)]
    memory = groups.get("memory")
    if memory:
        parts += [about(memory, "python -m benchmarks.methods"), READING]
        for model, methods in by_model(memory["runs"]).items():
            parts += [f"### {model}", memory_table(methods)]
    if "speed" in groups:
        parts += [
            "### Steps beside other trainers",
            about(groups["speed"], "python -m benchmarks.method_speed"),
            SPEED,
            speed_table(groups["speed"]["runs"]),
        ]
    return "\n\n".join(parts)


SPEED = """The embedded model, one row of 512 tokens a step, no gradient checkpointing, bfloat16 products; all
contenders of a method run in turns on the same rows, with one thread each. Seconds are processor time of the median
step, the first two left out, since the machine had other work meanwhile; a ratio compares runs of one round. GaLore
projects the weights of attention, for all contenders, and finds its projections in the first step."""


def about(group: dict[str, Any], command: str) -> str:
    """Command, machine, date and commit of a group."""
    machine = group["machine"]
    changed = " with changes" if group["changed_files"] else ""
    return (
        f"`{command}`, {group['date']}, commit `{group['commit'][:10]}`{changed}; {machine['cpu']}, {machine['cores']} "
        f"cores ({', '.join(machine['instructions'])}), {machine['memory_gb']} GB."
    )


def claim_table(groups: dict[str, Any]) -> str:
    """One line a claim."""
    lines = ["| ratio | figure |", "|---|---|"]
    return "\n".join([*lines, *(f"| {one.work} | **{one.figure:.3f}** |" for one in claims(groups))])


COLUMNS = ("method", "peak", "of full", "weights", "gradients", "state", "activations and rest", "forecast",
           "tokens per CPU s", "loss")  # fmt: skip


def memory_table(methods: dict[str, list[dict[str, Any]]]) -> str:
    """One line a method: the medians of its runs, in GB."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    whole = statistics.median(one["peak"] for one in methods["full"]) if "full" in methods else None
    for method, runs in methods.items():
        own = [[one[name] for one in runs] for name in ("peak", "weights", "gradients", "optimizer")]
        own.append([rest(one) for one in runs])
        sizes = [f"{statistics.median(values) / 1e9:.2f}" for values in own]
        share = "" if whole is None else f"{statistics.median(own[0]) / whole:.2f}"
        tokens = statistics.median(one["tokens"] / cpu_seconds(one) for one in runs)
        error = statistics.median(forecast_error(one) for one in runs)
        loss = statistics.median(one["held_out"] for one in runs)
        cells = [method, sizes[0], share, *sizes[1:], f"{error:+.1%}", f"{tokens:.0f}", f"{loss:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_table(runs: list[dict[str, Any]]) -> str:
    """One line a method and contender."""
    lines = ["| method | beside | LLF, s | other, s | ratio | smallest to largest |", "|---|---|---|---|---|---|"]
    for method in dict.fromkeys(one["method"] for one in runs):
        for other in ("llamafactory", "plain"):
            rounds = speed_rounds(runs, method, other)
            if not rounds:
                continue
            ours, theirs = (
                statistics.median(
                    cpu_seconds(one) for one in runs if (one["method"], one["contender"]) == (method, name)
                )
                for name in ("llf", other)
            )
            lines.append(
                f"| {method} | {NAMES[method, other]} | {ours:.3f} | {theirs:.3f} "
                f"| **{statistics.median(rounds):.2f}** | {min(rounds):.2f} to {max(rounds):.2f} |"
            )
    return "\n".join(lines)
