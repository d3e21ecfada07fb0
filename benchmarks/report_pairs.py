"""The section of `docs/benchmarks.md` about DPO."""

from __future__ import annotations

import math
import statistics
from functools import partial
from typing import Any

from benchmarks.ratios import (
    beside,
    disagreement,
    distances,
    first_losses,
    peak_bytes,
    step_seconds,
    with_reference,
)

OURS = "llf-dpo"
COLUMNS = (
    "contender", "step, s", "smallest to largest", "times ours", "reference once, s", "three epochs: step, s",
    "times ours", "one epoch: step, s", "times ours", "peak, GB",
)  # fmt: skip
FILES = "../benchmarks/contenders"


READING = """A step is the median of a run. LLF computes the reference once, before the first step, and caches it for
later runs. TRL does so if it is configured to; LLaMA-Factory computes it in every step. The columns for three epochs
and for one add each step's share of that time."""


def text(group: dict[str, Any]) -> str:
    """Speeds, what the reference costs, losses."""
    rows, by_name = group["rows"], _by_name(group)
    size = rows["rows"] / len(by_name[OURS][0]["steps"])
    data = f"""Data: {rows["rows"]} pairs of `{rows["data"]}`, {size:.0f} a step, with {rows["prompt"]} tokens
for the prompt and {rows["answer"]} for each answer. All start from the same adapter and see the same
pairs in the same order."""
    title = "## DPO, LoRA of rank 8 on all linear layers"
    parts = [title, data, speeds(group, by_name), READING, losses(group)]
    bare = [run["seconds"] for run in group["runs"] if run["contender"] == "matmuls"]
    if bare:
        seconds, step = statistics.median(bare), statistics.median(step_seconds(run) for run in by_name[OURS])
        parts.append(
            f"The bare matrix products of a step, with each prompt computed once, take {seconds:.3f} s: LLF reaches "
            f"{100 * seconds / step:.0f} % of the machine's peak at these shapes."
        )
    parts.append("![Loss curves of all contenders](images/bench-dpo.png)")
    return "\n\n".join(parts)


def _by_name(group: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    names: dict[str, list[dict[str, Any]]] = {}
    for run in group["runs"]:
        if "steps" in run:
            names.setdefault(run["contender"], []).append(run)
    return names


def speeds(group: dict[str, Any], by_name: dict[str, list[dict[str, Any]]]) -> str:
    """A line a contender: medians, and the medians of the ratios made within rounds."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    reads = (step_seconds, partial(with_reference, epochs=3), partial(with_reference, epochs=1))
    ratios = [beside(group, OURS, read) for read in reads]
    for name, runs in by_name.items():
        steps = [step_seconds(run) for run in runs]
        once, three, one, peak = (
            statistics.median(read(run) for run in runs)
            for read in (lambda run: run.get("reference_s", 0.0), *reads[1:], peak_bytes)
        )
        cells = [
            f"[{name}]({FILES}/{name}.yaml)",
            f"{statistics.median(steps):.3f}",
            f"{min(steps):.3f} to {max(steps):.3f}",
            f"**{ratios[0][name]:.2f}**",
            f"{once:.1f}" if once else "",
            f"{three:.3f}",
            f"{ratios[1][name]:.2f}",
            f"{one:.3f}",
            f"{ratios[2][name]:.2f}",
            f"{peak / 1e9:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def losses(group: dict[str, Any]) -> str:
    """The losses of the first steps, and how good the results are on held-out pairs."""
    first = first_losses(group)
    steps = len(first[OURS])
    columns = ["contender", *(f"loss, step {number + 1}" for number in range(steps))]
    columns += ["held-out loss", "margin", "accuracy"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, found in first.items():
        held = [group[key][name] for key in ("held_out", "margins", "accuracies")]
        cells = [name, *(f"{one:.4f}" for one in found), f"{held[0]:.4f}", f"{held[1]:.3f}", f"{100 * held[2]:.0f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    apart, rounded = (max(distances(found, OURS).values()) for found in (group["exact"], first))
    count = len(group["exact"][OURS])
    said = f"""In float32 the losses of the first {count} steps are at most {apart:.1e} from LLF's. In bfloat16, as
measured here, they are at most {rounded:.3f} from it. The log-probability of an answer sums logits with 8 bits over
its tokens, so policy and reference differ by some tenths by rounding alone, and the loss by a tenth of that.
Losses on {group["rows"]["held_out"]} held-out pairs, after the same steps, differ from LLF's by at most
{100 * disagreement(group["held_out"]):.2f} %; before any step they are {math.log(2):.4f}."""
    return "\n".join(lines) + "\n\n" + said
