"""From the stored runs of `results/methods.json` to what is claimed of the methods, and nothing else."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

Run = dict[str, Any]
FULL, LARGEST = "full", "llama-1b"
PEAK_GOAL = 0.45  # of full fine-tuning's peak
QUANTIZED_GOAL = 0.6  # bytes of a parameter
FORECAST_GOAL = 0.1  # of the peak
SPEED_GOAL = 1.0  # of a contender's step
MANY = 4  # steps
SMALL = ("badam", "galore-layerwise")


@dataclass(frozen=True)
class Checked:
    """A claim with its figure.

    Attributes:
        must: the largest figure that is good enough.
    """

    work: str
    figure: float
    must: float

    @property
    def reached(self) -> bool:
        """Whether the figure is as good as it must be."""
        return self.figure <= self.must


def by_model(runs: list[Run]) -> dict[str, dict[str, list[Run]]]:
    """Runs by model, then by method, in the order in which they were made."""
    found: dict[str, dict[str, list[Run]]] = {}
    for one in runs:
        found.setdefault(one["model"], {}).setdefault(one["contender"], []).append(one)
    return found


def median(runs: list[Run], name: str) -> float:
    """Median of a number of the runs of one method."""
    return statistics.median(float(one[name]) for one in runs)


def rest(run: Run) -> int:
    """Bytes of the peak that are not counted apart: activations, logits, copies, libraries that were imported late."""
    return int(run["peak"] - sum(run[name] for name in ("base", "weights", "gradients", "optimizer")))


def forecast_error(run: Run) -> float:
    """How far the forecast is above the peak, as a share of it."""
    return float(run["forecast"] / run["peak"] - 1)


def cpu_seconds(run: Run) -> float:
    """Processor seconds of the median step, without the first two, in which kernels are chosen and projections found.

    Of a run of few steps only the first one is left out.
    """
    left_out = 2 if len(run["cpu"]) > MANY else 1
    return statistics.median(run["cpu"][left_out:])


def speed_rounds(runs: list[Run], method: str, other: str) -> list[float]:
    """Processor seconds of LLF's median step by those of a contender, of each round."""
    steps = {(one["contender"], one["round"]): cpu_seconds(one) for one in runs if one["method"] == method}
    rounds = sorted({number for name, number in steps if name == other and ("llf", number) in steps})
    return [steps["llf", number] / steps[other, number] for number in rounds]


def claims(groups: dict[str, Any]) -> list[Checked]:
    """All claims that stored runs say something about.

    Args:
        groups: of `results/methods.json`.
    """
    found: list[Checked] = []
    models = by_model(groups.get("memory", {"runs": []})["runs"])
    largest = models.get(LARGEST, {})
    for method in SMALL:
        if method in largest and FULL in largest:
            ratio = median(largest[method], "peak") / median(largest[FULL], "peak")
            found.append(Checked(f"{method}: peak memory by that of full with AdamW, {LARGEST}", ratio, PEAK_GOAL))
    for model, methods in models.items():
        for one in methods.get("qlora", [])[-1:]:
            each = one["quantized_bytes"] / one["quantized_parameters"]
            found.append(Checked(f"qlora: bytes of a quantized parameter, {model}", each, QUANTIZED_GOAL))
    errors = [abs(forecast_error(one)) for methods in models.values() for runs in methods.values() for one in runs]
    if errors:
        found.append(Checked("all rows: largest error of the memory forecast", max(errors), FORECAST_GOAL))
    speed = groups.get("speed", {"runs": []})["runs"]
    for method in dict.fromkeys(one["method"] for one in speed):
        for other in ("llamafactory", "plain"):
            if rounds := speed_rounds(speed, method, other):
                words = f"{method}: processor seconds of a step by those of {NAMES[method, other]}"
                found.append(Checked(words, statistics.median(rounds), SPEED_GOAL))
    return found


NAMES = {
    **{(method, "llamafactory"): "LLaMA-Factory" for method in ("lora", "oft", "galore", "badam")},
    ("lora", "plain"): "plain PEFT",
    ("oft", "plain"): "plain PEFT",
    ("galore", "plain"): "galore-torch",
    ("badam", "plain"): "badam",
}
"""What each contender is called in the table."""
