"""From the stored runs of `results/sft.json` and `results/dpo.json` to the ratios that are claimed, and nothing else.

A ratio is made within each round, of runs that stood beside each other in time; what is told is the median of the
rounds, with the smallest and the largest.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LEFT_OUT = 3  # first optimizer steps of a run, in which caches fill and kernels are chosen
MEASURES = ("logps/chosen", "logps/rejected", "rewards/margins", "rewards/accuracies")
"""What is kept of each step on pairs, beside its loss."""
FIRST = 5  # steps whose losses are compared
Run = dict[str, Any]


def counted(run: Run) -> list[list[float]]:
    """The steps that count: all but the first three, of a smoke test's few at least the last."""
    steps: list[list[float]] = run["steps"]
    return steps[min(LEFT_OUT, len(steps) - 1) :]


def tokens_per_second(run: Run) -> float:
    """Real tokens a second over all steps but the first."""
    steps = counted(run)
    return float(sum(step[1] for step in steps) / sum(step[0] for step in steps))


def trained_per_second(run: Run) -> float:
    """Trained tokens a second over all steps but the first."""
    steps = counted(run)
    return float(sum(step[2] for step in steps) / sum(step[0] for step in steps))


def step_seconds(run: Run) -> float:
    """Seconds of the median step."""
    return statistics.median(step[0] for step in counted(run))


def peak_bytes(run: Run) -> float:
    """The highest resident set."""
    return float(run["peak_bytes"])


def seconds(run: Run) -> float:
    """What a run without steps took."""
    return float(run["seconds"])


def with_reference(run: Run, epochs: int) -> float:
    """Seconds of the median step, and the step's share of what was asked of a reference before the first one."""
    return step_seconds(run) + float(run.get("reference_s", 0)) / (epochs * len(run["steps"]))


@dataclass(frozen=True)
class Claim:
    """One row of the table."""

    group: str
    above: tuple[str, Callable[[Run], float]]
    below: tuple[str, Callable[[Run], float]]
    better: Literal["more", "less"]
    work: str


CLAIMS = {
    "sft_vs_llamafactory_default": Claim(
        "sft", ("llf", tokens_per_second), ("llamafactory-default", tokens_per_second), "more",
        "LoRA, real tokens per second, against LLaMA-Factory's default",
    ),
    "sft_vs_llamafactory_best": Claim(
        "packed", ("llf-packed", tokens_per_second), ("llamafactory-best", tokens_per_second), "more",
        "LoRA, real tokens per second, against LLaMA-Factory's best setting",
    ),
    "sft_vs_trl": Claim(
        "packed", ("llf-packed", tokens_per_second), ("trl", tokens_per_second), "more",
        "LoRA, real tokens per second, against TRL's best setting",
    ),
    "sft_vs_peft": Claim(
        "sft", ("llf", tokens_per_second), ("peft", tokens_per_second), "more",
        "LoRA, real tokens per second, against plain Trainer with PEFT",
    ),
    "memory_vs_llamafactory_best": Claim(
        "packed", ("llf-packed", peak_bytes), ("llamafactory-best", peak_bytes), "less",
        "LoRA, peak resident memory, against LLaMA-Factory's best setting, same batch",
    ),
    "step_vs_matmuls": Claim(
        "packed", ("llf-packed", step_seconds), ("matmuls", seconds), "less",
        "LoRA, time of a step, against its bare matrix products",
    ),
    "startup_vs_llamafactory": Claim(
        "startup", ("llf", seconds), ("llamafactory", seconds), "less",
        "Start to first step, cold, against `llamafactory-cli train`",
    ),
    "full_vs_trainer": Claim(
        "full", ("llf-full", tokens_per_second), ("trainer-full", tokens_per_second), "more",
        "Full fine-tuning, real tokens per second, against plain Trainer",
    ),
    "qlora_vs_trainer": Claim(
        "qlora", ("llf-qlora", tokens_per_second), ("trainer-qlora", tokens_per_second), "more",
        "QLoRA (NF4), real tokens per second, against plain Trainer with PEFT",
    ),
    "decode_vs_generate": Claim(
        "decode", ("transformers", seconds), ("llf", seconds), "more",
        "Greedy decoding, batch 1, float32, equal texts, against `model.generate`",
    ),
    "dpo_vs_llamafactory_default": Claim(
        "dpo", ("llamafactory-dpo-default", step_seconds), ("llf-dpo", step_seconds), "more",
        "DPO, time of a step on the same pairs, against LLaMA-Factory's default",
    ),
    "dpo_vs_llamafactory_best": Claim(
        "dpo", ("llamafactory-dpo-best", step_seconds), ("llf-dpo", step_seconds), "more",
        "DPO, time of a step on the same pairs, against LLaMA-Factory's best setting",
    ),
    "dpo_vs_trl": Claim(
        "dpo", ("trl-dpo", step_seconds), ("llf-dpo", step_seconds), "more",
        "DPO, time of a step on the same pairs, against TRL's best setting",
    ),
    "dpo_vs_trl_precomputed": Claim(
        "dpo", ("trl-dpo-precomputed", step_seconds), ("llf-dpo", step_seconds), "more",
        "DPO, time of a step on the same pairs, against TRL's, both with the reference asked before",
    ),
    "dpo_step_vs_matmuls": Claim(
        "dpo", ("llf-dpo", step_seconds), ("matmuls", seconds), "less",
        "DPO, time of a step, against its bare matrix products",
    ),
}  # fmt: skip


def by_round(group: Mapping[str, Any]) -> dict[int, dict[str, Run]]:
    """The runs of a group by round and contender."""
    rounds: dict[int, dict[str, Run]] = {}
    for run in group["runs"]:
        rounds.setdefault(run["round"], {})[run["contender"]] = run
    return rounds


def ratios_of(claim: Claim, groups: Mapping[str, Any]) -> list[float]:
    """The ratio of each round in which both sides ran."""
    (upper, read_upper), (lower, read_lower) = claim.above, claim.below
    return [
        read_upper(runs[upper]) / read_lower(runs[lower])
        for _, runs in sorted(by_round(groups.get(claim.group, {"runs": []})).items())
        if upper in runs and lower in runs
    ]


def summary(groups: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """What the stored runs say.

    Returns:
        The median ratio of each claim that has runs, and its smallest, largest and single values.
    """
    medians, ranges = {}, {}
    for name, claim in CLAIMS.items():
        found = ratios_of(claim, groups)
        if found:
            medians[name] = round(statistics.median(found), 3)
            ranges[name] = {
                "min": round(min(found), 3),
                "max": round(max(found), 3),
                "rounds": [round(one, 3) for one in found],
            }
    return medians, ranges


def beside(group: Mapping[str, Any], ours: str, read: Callable[[Run], float]) -> dict[str, float]:
    """How many times ours each contender needs: the median of the rounds."""
    found: dict[str, list[float]] = {}
    for runs in by_round(group).values():
        for name, run in runs.items():
            if "steps" in run and ours in runs:
                found.setdefault(name, []).append(read(run) / read(runs[ours]))
    return {name: statistics.median(ratios) for name, ratios in found.items()}


def first_losses(group: Mapping[str, Any]) -> dict[str, list[float]]:
    """The losses of each contender's first steps, of the first round."""
    return {
        name: [step[3] for step in run["steps"][:FIRST]] for name, run in by_round(group)[0].items() if "steps" in run
    }


def distances(losses: Mapping[str, list[float]], ours: str) -> dict[str, float]:
    """By how much the losses of the others differ from ours at most."""
    return {
        name: max(abs(theirs - own) for theirs, own in zip(found, losses[ours], strict=True))
        for name, found in losses.items()
        if name != ours
    }


def disagreement(losses: Mapping[str, float]) -> float:
    """The largest relative distance between the held-out losses of two that a claim compares."""
    pairs = {(claim.above[0], claim.below[0]) for claim in CLAIMS.values()}
    return max(abs(losses[ours] / losses[theirs] - 1) for ours, theirs in pairs if {ours, theirs} <= set(losses))
