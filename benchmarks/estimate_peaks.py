"""The memory forecast against the measured peak of a CPU run: methods, lengths, batches and two sizes of models.

    python -m benchmarks.estimate_peaks                     all configurations, one run each
    python -m benchmarks.estimate_peaks --models llama-0.5b --methods full,lora
    python -m benchmarks.estimate_peaks --mixed             examples of different lengths alone

Each config is trained for four steps by the trainer, or for 24 on examples of the lengths of real instructions. The
trainer keeps its peak in `past_runs.json`. The peaks go to `results/estimate_peaks.json`, in place of earlier ones of
the same configuration. `python -m benchmarks.estimate` compares them with the forecasts of the code as it is, from the
configs alone, in `docs/estimate.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import results
from benchmarks.methods import SHAPES, model_folder, write_mixed, write_rows
from benchmarks.peers import versions
from benchmarks.processes import module, our_environment, run
from benchmarks.rows import MODEL
from llf_core.config import RunConfig
from llf_core.estimate import Device, check_fit
from llf_core.estimate.example_lengths import of_lengths
from llf_core.runs import create_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llf_core.estimate.fit_result import MemoryParts

STORED = Path(__file__).parent / "results" / "estimate_peaks.json"
GOAL = 0.1
CPU = Device("cpu", "CPU", 24 << 30, 22 << 30, bf16=True)
"""Where the peaks were measured, as far as the memory of a run depends on it."""
STEPS, MIXED_STEPS = 4, 24
MODELS = (MODEL, "llama-0.5b")
COMMON: dict[str, Any] = {
    "stage": "sft", "template": "chatml", "max_steps": STEPS, "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no", "use_cpu": True, "seed": 42,
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "full": {"finetuning_type": "full", "pure_bf16": True, "learning_rate": 2e-5},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 2, "pure_bf16": True, "learning_rate": 2e-5},
    "lora": {"finetuning_type": "lora", "lora_rank": 8, "bf16": True, "learning_rate": 2e-4},
    "qlora": {"finetuning_type": "lora", "lora_rank": 8, "quantization_bit": 4, "bf16": True, "learning_rate": 2e-4},
}
PASSES: tuple[tuple[int, int, bool], ...] = ((256, 1, False), (256, 4, False), (1024, 1, False), (1024, 1, True))
"""Tokens of an example, examples of a batch, and whether activations are checkpointed."""
MIXED: tuple[int, int] = (1024, 4)
"""Most tokens of an example, and examples of a batch, where examples differ in length."""
MIXED_METHODS = ("full", "lora")


def shape(model: str) -> dict[str, Any]:
    """What the `config.json` of a model says of its sizes; all have the vocabulary of the embedded model."""
    return {"model_type": "llama", "vocab_size": 49152, "tie_word_embeddings": True} | SHAPES[model]


def settings_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a stored run, without model and data."""
    mixed = {"max_steps": MIXED_STEPS, "train_sampling_strategy": "sequential"} if run.get("lengths") else {}
    return (COMMON | METHODS[run["contender"]] | mixed) | {
        "cutoff_len": run["length"],
        "per_device_train_batch_size": run["batch"],
        "gradient_checkpointing": run["checkpointing"],
    }


def forecast(run: Mapping[str, Any], folder: Path) -> MemoryParts:
    """Forecast a stored run from its config and the sizes of its model, with no past run to learn from.

    Args:
        run: what identifies it: model, method, length, batch, checkpointing; and `lengths`, quantiles of the tokens of
            its examples where they differ.
    """
    name = run["model"]
    if name != MODEL:
        (folder / "config.json").write_text(json.dumps(shape(name)))
    model = name if name == MODEL else str(folder)
    config = RunConfig.load(settings_of(run) | {"model_name_or_path": model, "dataset": "llf_demo"})
    own, count = run.get("lengths") or [run["length"]], run.get("examples", 1000)
    lengths = of_lengths(np.array(own), count, basis="Lengths of the examples.", exact=True)
    with without_past_runs(folder):
        found = check_fit(config, lengths, (CPU,))
    assert found.memory is not None
    return found.memory


@contextmanager
def without_past_runs(home: Path) -> Iterator[None]:
    """Forecasts inside of it know no past run of this machine."""
    before = os.environ.get("LLF_HOME")
    os.environ["LLF_HOME"] = str(home)
    try:
        yield
    finally:
        del os.environ["LLF_HOME"]
        if before is not None:
            os.environ["LLF_HOME"] = before


def measure(model: Path, settings: dict[str, Any], rows: Path) -> dict[str, Any]:
    """Train a config.

    Returns:
        What the run has added to the table of past runs: `memory` is the peak of its steps in bytes.
    """
    with tempfile.TemporaryDirectory(prefix="llf-peak-") as scratch:
        home = Path(scratch) / "home"
        asked = settings | {"model_name_or_path": str(model), "dataset": "train", "dataset_dir": str(rows)}
        made = create_run(RunConfig.load(asked).yaml(defaults=True), "peak", home)
        run(module("llf_core.training.main", made.path), our_environment(home), made.log)
        (past,) = json.loads((home / "past_runs.json").read_text())["runs"]
    found: dict[str, Any] = past
    return found


def main() -> None:
    """Run the configurations that the options select."""
    from llf_core.models import resolve_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="separated by commas")
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas")
    parser.add_argument("--mixed", action="store_true", help="only examples of different lengths")
    parser.add_argument("--work", type=Path, help="a folder that keeps the models; default: a temporary one")
    parser.add_argument("--results", type=Path, default=STORED)
    asked = parser.parse_args()
    models, methods = asked.models.split(","), asked.methods.split(",")
    if unknown := (set(models) - set(SHAPES)) | (set(methods) - set(METHODS)):
        parser.error(f"There is no {', '.join(sorted(unknown))}. Choose from {', '.join((*SHAPES, *METHODS))}.")
    with tempfile.TemporaryDirectory(prefix="llf-peaks-") as scratch:
        work = asked.work or Path(scratch)
        rows = Path(scratch) / "rows"
        write_rows(rows, STEPS * max(batch for _, batch, _ in PASSES), length=max(length for length, _, _ in PASSES))
        for name in models:
            model = model_folder(name, work, resolve_model(MODEL).path)
            for method in methods:
                for length, batch, checkpointing in () if asked.mixed else PASSES:
                    key = {"model": name, "contender": method, "length": length, "batch": batch}
                    key["checkpointing"] = checkpointing
                    load = os.getloadavg()[0]
                    add(asked.results, key, int(measure(model, settings_of(key), rows)["memory"]), load)
            length, batch = MIXED
            for method in (one for one in MIXED_METHODS if one in methods):
                mixed = Path(scratch) / "mixed"
                if not mixed.exists():
                    write_mixed(mixed, MIXED_STEPS * batch, together=batch)
                key = {"model": name, "contender": method, "length": length, "batch": batch, "checkpointing": False}
                load = os.getloadavg()[0]
                past = measure(model, settings_of(key | {"lengths": True}), mixed)
                own = {"examples": past["examples"], "lengths": past["quantiles"]}
                add(asked.results, key | own, int(past["memory"]), load)


def add(file: Path, key: dict[str, Any], peak: int, load: float) -> None:
    """Stores a peak in the place of an earlier one of the same configuration, and prints it beside the forecast."""
    stored: dict[str, Any] = (
        json.loads(file.read_text()) if file.exists() else {"format": 1, "unit": "bytes", "runs": []}
    )
    stored |= results.circumstances() | {"versions": versions(), "common": COMMON, "settings": METHODS}
    same = {name: value for name, value in key.items() if name not in {"lengths", "examples"}}
    stored["runs"] = [
        one
        for one in stored["runs"]
        if bool(one.get("lengths")) != bool(key.get("lengths")) or any(one[name] != same[name] for name in same)
    ]
    stored["runs"].append(key | {"load": round(load, 1), "peak": peak})
    file.write_text(results.text_of(stored))
    with tempfile.TemporaryDirectory() as folder:
        total = forecast(key, Path(folder)).total
    sizes = f"{peak / 1e9:8.3f}{total / 1e9:8.3f}{total / peak - 1:+8.1%}"
    print(
        f"{key['model']:24}{key['contender']:8}{key['length']:6}{key['batch']:3}{key['checkpointing']:3}{sizes}",
        flush=True,
    )


if __name__ == "__main__":
    main()
