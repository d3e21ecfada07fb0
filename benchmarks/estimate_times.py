"""The forecast of a run's time, before and after *Measure*, against the time of the run.

    python -m benchmarks.estimate_times [--cases lora-256,full-256] [--rounds 3]

Nothing else may run on the machine; about half an hour on two cores. Each config is forecast in an empty `LLF_HOME`,
as on a new machine; then *Measure* makes its steps and it is forecast again; then it is trained for `STEPS` steps. The
first of them, in which kernels are chosen, counts as the mean of the others. A machine is not equally fast at all times
(the memory of a virtual one is its neighbours' too), so that this is done in several rounds: counted is the median of
the rounds' errors, and the whole range is kept. The table goes to `results/estimate_times.json`, in place of earlier
results of the same case, and `python -m benchmarks.estimate` shows it in `docs/estimate.md`. The exit code is 1 if a
goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import results
from benchmarks.estimate_peaks import without_past_runs
from benchmarks.methods import model_folder, write_mixed, write_rows
from benchmarks.processes import module, our_environment, run
from benchmarks.rows import MODEL
from llf_core.config import RunConfig
from llf_core.data.text_lengths import estimate
from llf_core.runs import RunReader, create_run

STORED = Path(__file__).parent / "results" / "estimate_times.json"
GOALS = {"before": 0.25, "measured": 0.10}
STEPS = 12
COMMON: dict[str, Any] = {
    "stage": "sft", "template": "chatml", "max_steps": STEPS, "gradient_accumulation_steps": 1, "logging_steps": 1,
    "save_strategy": "no", "use_cpu": True, "seed": 42, "per_device_train_batch_size": 1, "bf16": True,
    "gradient_checkpointing": False,
}  # fmt: skip
LORA: dict[str, Any] = {"finetuning_type": "lora", "lora_rank": 8, "learning_rate": 2e-4}
FULL: dict[str, Any] = {"finetuning_type": "full", "bf16": False, "pure_bf16": True, "learning_rate": 2e-5}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lora-256": (MODEL, "long", LORA | {"cutoff_len": 256}),
    "lora-256-batch-4": (MODEL, "long", LORA | {"cutoff_len": 256, "per_device_train_batch_size": 4}),
    "lora-1024": (MODEL, "long", LORA | {"cutoff_len": 1024}),
    "lora-1024-checkpointed": (MODEL, "long", LORA | {"cutoff_len": 1024, "gradient_checkpointing": True}),
    "lora-mixed-batch-4": (MODEL, "mixed", LORA | {"cutoff_len": 1024, "per_device_train_batch_size": 4}),
    "lora-padded-batch-4": (
        MODEL, "mixed", LORA | {"cutoff_len": 1024, "per_device_train_batch_size": 4, "fast_path": False},
    ),
    "qlora-256": (MODEL, "long", LORA | {"cutoff_len": 256, "quantization_bit": 4}),
    "full-256": (MODEL, "long", FULL | {"cutoff_len": 256}),
    "freeze-256": (MODEL, "long", FULL | {"cutoff_len": 256, "finetuning_type": "freeze"}),
    "larger-lora-256": ("llama-0.5b", "long", LORA | {"cutoff_len": 256}),
    "larger-full-256": ("llama-0.5b", "long", FULL | {"cutoff_len": 256}),
}  # fmt: skip
"""Model, data set and keys of each case. `mixed` has examples of the lengths of real instructions."""
ROWS = 200

Case = dict[str, Any]
"""A case's results: `seconds`, `before` and `measured` of each round, in seconds, and `stolen`."""


def main() -> int:
    """Run the cases that the options select, print and store each.

    Returns:
        The exit code: 1 if a goal is missed.
    """
    from llf_core.models import resolve_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="separated by commas")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is measured")
    options = parser.parse_args()
    names = options.cases.split(",")
    if unknown := set(names) - set(CASES):
        parser.error(f"There is no {', '.join(sorted(unknown))}. Choose from {', '.join(CASES)}.")
    missed = False
    with tempfile.TemporaryDirectory(prefix="llf-times-") as scratch:
        work = Path(scratch)
        write_rows(work / "long", ROWS, length=1024)
        write_mixed(work / "mixed", ROWS)
        for name in names:
            model, data, keys = CASES[name]
            folder = model_folder(model, work, resolve_model(MODEL).path)
            asked = {"model_name_or_path": str(folder), "dataset": "train", "dataset_dir": str(work / data)}
            found = case(RunConfig.load(COMMON | keys | asked), options.rounds)
            add(name, found)
            missed = missed or any(abs(error(found, one)) > goal for one, goal in GOALS.items())
    return int(missed)


def case(config: RunConfig, rounds: int) -> Case:
    """`times` of a config, each round with an `LLF_HOME` of its own, and `stolen`, the share that the host took."""
    before = psutil.cpu_times()
    made = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="llf-times-") as home:
            made.append(times(config, Path(home)))
    found = {key: [one[key] for one in made] for key in made[0]}
    return found | {"stolen": stolen(before, psutil.cpu_times())}


def errors(found: Case, kind: str) -> list[float]:
    """The relative errors of a case's forecasts in its rounds.

    Args:
        kind: the forecast `before` or when `measured`.
    """
    return [forecast / seconds - 1 for forecast, seconds in zip(found[kind], found["seconds"], strict=True)]


def error(found: Case, kind: str) -> float:
    """The median of `errors`."""
    return statistics.median(errors(found, kind))


def stolen(before: Any, after: Any) -> float:
    """The share of used time that the host of a virtual machine gave to others between two `psutil.cpu_times()`.

    Returns:
        Stolen time divided by the sum of stolen time and time in which something ran; 0 where the system does not tell.
    """
    taken = getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)
    used = sum(getattr(after, one) - getattr(before, one) for one in ("user", "system"))
    return taken / (taken + used) if taken else 0.0


def times(config: RunConfig, home: Path) -> dict[str, float]:
    """Forecast, measure, forecast again and train a config.

    Args:
        home: an empty folder, the `LLF_HOME` of all of it.

    Returns:
        Seconds of all steps: forecast `before`, forecast when `measured`, and of the run (`seconds`).
    """
    log = home / "log.txt"
    found = {"before": forecast(config, home)}
    file = home / "config.yaml"
    file.write_text(config.yaml(defaults=True))
    run(module("llf_core.training.measure", file), our_environment(home), log)
    found["measured"] = forecast(config, home)
    made = create_run(config.yaml(defaults=True), "times", home)
    run(module("llf_core.training.main", made.path), our_environment(home), made.log)
    steps = np.array(RunReader(made).metrics().values("step_seconds"))
    return found | {"seconds": float(steps[1:].mean() * STEPS)}


def forecast(config: RunConfig, home: Path) -> float:
    """Seconds of all steps as the form shows them."""
    with without_past_runs(home):
        found = estimate(config).duration
    assert found is not None
    assert found.seconds is not None
    return found.seconds


def stored() -> dict[str, Case]:
    """The stored results by the name of the case."""
    return json.loads(STORED.read_text())["cases"] if STORED.exists() else {}


def add(name: str, found: Case) -> None:
    """Store a case in the place of an earlier one, and print it."""
    rounded = {key: [round(one, 3) for one in found[key]] for key in ("seconds", *GOALS)}
    cases = stored() | {name: rounded | {"stolen": round(found["stolen"], 3)}}
    whole = {"format": 2, "unit": "seconds"} | results.circumstances() | {"load": round(os.getloadavg()[0], 1)}
    STORED.write_text(
        json.dumps(whole | {"cases": {one: cases[one] for one in CASES if one in cases}}, indent=1) + "\n"
    )
    seconds = statistics.median(found["seconds"])
    shown = "".join(
        f"{error(found, one):+9.1%} ({min(errors(found, one)):+.1%} to {max(errors(found, one)):+.1%})" for one in GOALS
    )
    sys.stdout.write(f"{name:24}{seconds:9.1f} s{shown}   {found['stolen']:.0%} stolen\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
