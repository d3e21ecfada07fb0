"""The memory forecast against the measured peak of a CPU run: methods, lengths, batches and two sizes of models.

    python -m benchmarks.estimate_peaks                     all configurations, one run each
    python -m benchmarks.estimate_peaks --models llama-0.5b --methods full,lora

Each forecast is what `llf estimate` says of the config, with no past run to learn from. Then the config is trained for
four steps by the trainer, which keeps its peak in `past_runs.json`. The runs go to `results/estimate_peaks.json`, in
place of earlier ones of the same configuration; `python -m benchmarks.estimate` puts them in `docs/estimate.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.methods import SHAPES, model_folder, write_rows
from benchmarks.peers import versions
from benchmarks.processes import module, our_environment, run
from benchmarks.rows import MODEL

STORED = Path(__file__).parent / "results" / "estimate_peaks.json"
GOAL = 0.1
STEPS = 4
MODELS = (MODEL, "llama-0.5b")
COMMON: dict[str, Any] = {
    "stage": "sft", "template": "chatml", "dataset": "train", "max_steps": STEPS, "gradient_accumulation_steps": 1,
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


def forecast(config: Path, environment: dict[str, str]) -> dict[str, int]:
    """Bytes by part that `llf estimate` forecasts of a config."""
    command = [sys.executable, "-c", "from llf_core.cli import main; main()", "estimate", str(config), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout)["memory"])


def measure(model: Path, settings: dict[str, Any], rows: Path) -> tuple[dict[str, int], int]:
    """Forecasts a config, then trains it.

    Args:
        model: folder of the model.
        settings: keys of the config beside `COMMON`.
        rows: folder of the data set.

    Returns:
        The forecast by part, and the peak of the steps; bytes.
    """
    from llf_core.config import RunConfig
    from llf_core.runs import create_run

    with tempfile.TemporaryDirectory(prefix="llf-peak-") as scratch:
        home = Path(scratch) / "home"
        environment = our_environment(home)
        asked = COMMON | settings | {"model_name_or_path": str(model), "dataset_dir": str(rows)}
        config = Path(scratch) / "config.yaml"
        config.write_text(RunConfig.load(asked).yaml())
        parts = forecast(config, environment)
        made = create_run(RunConfig.load(asked).yaml(defaults=True), "peak", home)
        run(module("llf_core.training.main", made.path), environment, made.log)
        (past,) = json.loads((home / "past_runs.json").read_text())["runs"]
    return parts, past["memory"]


def main() -> None:
    """Run the configurations that the options select."""
    from llf_core.models import resolve_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="separated by commas")
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas")
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
                for length, batch, checkpointing in PASSES:
                    settings = METHODS[method] | {
                        "cutoff_len": length,
                        "per_device_train_batch_size": batch,
                        "gradient_checkpointing": checkpointing,
                    }
                    load = os.getloadavg()[0]
                    parts, peak = measure(model, settings, rows)
                    key = {"model": name, "contender": method, "length": length, "batch": batch}
                    add(asked.results, key | {"checkpointing": checkpointing}, parts, peak, load)


def add(file: Path, key: dict[str, Any], parts: dict[str, int], peak: int, load: float) -> None:
    """Stores a run in the place of an earlier one of the same configuration, and prints it."""
    stored = json.loads(file.read_text()) if file.exists() else {"format": 1, "unit": "bytes", "runs": []}
    stored |= results.circumstances() | {"versions": versions(), "common": COMMON, "settings": METHODS}
    stored["runs"] = [one for one in stored["runs"] if any(one[name] != value for name, value in key.items())]
    stored["runs"].append(key | {"load": round(load, 1), "peak": peak, "forecast": parts})
    file.write_text(results.text_of(stored))
    sizes = f"{peak / 1e9:8.3f}{parts['total'] / 1e9:8.3f}{parts['total'] / peak - 1:+8.1%}"
    print(
        f"{key['model']:24}{key['contender']:8}{key['length']:6}{key['batch']:3}{key['checkpointing']:3}{sizes}",
        flush=True,
    )


if __name__ == "__main__":
    main()
