"""The pictures of `docs/benchmarks.md`: losses over trained tokens, and what a token costs as one thing grows."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from benchmarks.ratios import tokens_per_second

if TYPE_CHECKING:
    from pathlib import Path

SMOOTH = 5  # steps of the running mean
XLABELS = {"length": "tokens a row", "batch": "rows a step", "rank": "LoRA rank", "size": "parameters"}


def draw(groups: dict[str, Any], folder: Path) -> None:
    """Draws every group that has runs with steps."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("sft", "packed", "full", "qlora", "dpo"):
        if name in groups:
            losses(groups[name], folder / f"bench-{name}.png")
    if "sweep" in groups:
        growth(groups["sweep"], folder / "bench-sweep.png")


def losses(group: dict[str, Any], file: Path) -> None:
    """Each contender's first run: a running mean of the loss over the trained tokens so far, and over seconds."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for run in group["runs"]:
        if run["round"] or "steps" not in run:
            continue
        values = [step[3] for step in run["steps"]]
        smooth = [
            sum(part) / len(part) for part in (values[max(0, i - SMOOTH + 1) : i + 1] for i in range(len(values)))
        ]
        for axis, column, label in zip(axes, (2, 0), ("trained tokens", "seconds of steps"), strict=True):
            axis.plot(list(accumulate(step[column] for step in run["steps"])), smooth, label=run["contender"])
            axis.set_xlabel(label)
    axes[0].set_ylabel(f"loss, mean of {SMOOTH} steps")
    axes[1].legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)


def growth(group: dict[str, Any], file: Path) -> None:
    """Tokens a second and peak memory against what grows."""
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    axes = figure.subplots(1, len(XLABELS))
    for axis, (swept, label) in zip(axes, XLABELS.items(), strict=True):
        runs = [run for run in group["runs"] if run["swept"] == swept]
        places = [str(run["value"]) for run in runs]
        axis.plot(places, [tokens_per_second(run) for run in runs], marker="o")
        axis.set_ylim(bottom=0)
        axis.set_xlabel(label)
        memory = axis.twinx()
        memory.plot(places, [run["peak_bytes"] / 1e9 for run in runs], marker="s", color="tab:orange")
        memory.set_ylim(bottom=0)
        axis.set_ylabel("tokens/s", color="tab:blue")
        memory.set_ylabel("peak memory, GB", color="tab:orange")
    figure.savefig(file, dpi=110)


def ppo(result: dict[str, Any], file: Path) -> None:
    """Shared against separate models: reward and KL by phase, mean and range over the seeds, and the win rates."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(2, 2, 1))
    for place, (mode, color) in enumerate((("shared", "tab:blue"), ("separate", "tab:orange"))):
        runs = [run for run in result["runs"] if run["mode"] == mode]
        for axis, name in zip(axes, ("reward", "kl"), strict=False):
            by_phase = list(zip(*(run["curves"][name] for run in runs), strict=True))
            phases = range(1, len(by_phase) + 1)
            axis.plot(phases, [sum(values) / len(values) for values in by_phase], color=color, label=mode)
            axis.fill_between(phases, list(map(min, by_phase)), list(map(max, by_phase)), color=color, alpha=0.2, lw=0)
        rates = [run["win_rate"] for run in runs]
        axes[2].bar(place, sum(rates) / len(rates), color=color, alpha=0.4)
        axes[2].plot([place] * len(rates), rates, "o", color=color)
    for axis, label in zip(axes, ("reward", "KL of an answer, nats"), strict=False):
        axis.set_xlabel("phase")
        axis.set_ylabel(label)
    axes[0].legend(frameon=False)
    axes[2].set_xticks([0, 1], ["shared", "separate"])
    axes[2].set_ylim(0, 1.02)
    axes[2].axhline(0.5, color="gray", lw=0.8, ls=":")
    axes[2].set_ylabel("wins against the base")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
