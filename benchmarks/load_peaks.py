"""The forecast of the peak while a model is quantized as it is loaded, against the measured one, by quantizer.

    python -m benchmarks.load_peaks [--quantizers hqq,bnb] [--models llama-0.5b]

Each model is loaded on the CPU by a process of its own, whose peak (VmHWM) is kept with the forecast in
`results/load_peaks.json`, in place of an earlier one of the same case. `python -m benchmarks.estimate` shows them in
`docs/estimate.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.estimate_peaks import CPU, MODELS, shape
from benchmarks.methods import model_folder
from benchmarks.processes import module, our_environment, run
from benchmarks.rows import MODEL
from llf_core.config import RunConfig
from llf_core.config.quantizers import QUANTIZERS
from llf_core.estimate import Forecaster
from llf_core.estimate.example_lengths import of_lengths
from llf_core.estimate.loading import forecast_loading

if TYPE_CHECKING:
    from collections.abc import Mapping

STORED = Path(__file__).parent / "results" / "load_peaks.json"
CASES = (("hqq", 4), ("bnb", 4), ("bnb", 8), ("torchao", 8), ("quanto", 8))
"""Quantizers and bits."""
TOKENS = 256


def settings(quantizer: str, bits: int) -> dict[str, Any]:
    """The config of a case, without its model."""
    return {
        "dataset": "llf_demo", "use_cpu": True, "bf16": True, "quantization_method": quantizer,
        "quantization_bit": bits, "per_device_train_batch_size": 1, "cutoff_len": TOKENS,
    }  # fmt: skip


def forecast(case: Mapping[str, Any], folder: Path) -> int:
    """Forecast the peak of a stored case from the sizes of its model, in bytes."""
    name = case["model"]
    if name != MODEL:
        (folder / "config.json").write_text(json.dumps(shape(name)))
    model = name if name == MODEL else str(folder)
    config = RunConfig.load(settings(case["quantizer"], case["bits"]) | {"model_name_or_path": model})
    step = Forecaster(config, of_lengths(np.array([TOKENS]), 1000, basis="", exact=True), CPU).step
    found = None if step is None else forecast_loading(config, step)
    assert found is not None
    return found.total


def stored() -> list[dict[str, Any]]:
    """The stored cases, each with its measured peak and its forecast in bytes, as the code is now.

    Where the quantizer is not installed, its config is refused, and the stored forecast counts.
    """
    found = json.loads(STORED.read_text())["runs"] if STORED.exists() else []
    for case in found:
        if not QUANTIZERS[case["quantizer"]].missing_packages():
            with tempfile.TemporaryDirectory() as folder:
                case["forecast"] = forecast(case, Path(folder))
    return found


def main() -> None:
    """Measure the cases that the options select, print each and store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="separated by commas")
    parser.add_argument("--quantizers", default=",".join(dict(CASES)), help="separated by commas")
    parser.add_argument("--load", nargs=3, metavar=("MODEL", "QUANTIZER", "BITS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.load:
        load(*asked.load)
        return
    from llf_core.models import resolve_model

    with tempfile.TemporaryDirectory(prefix="llf-load-") as scratch:
        for name in asked.models.split(","):
            model = model_folder(name, Path(scratch), resolve_model(MODEL).path)
            for quantizer, bits in CASES:
                if quantizer in asked.quantizers.split(","):
                    case = {"model": name, "quantizer": quantizer, "bits": bits}
                    log = Path(scratch) / "log.txt"
                    child = module("benchmarks.load_peaks", "--load", model, quantizer, bits)
                    run(child, our_environment(Path(scratch) / "home"), log)
                    (peak,) = (line for line in log.read_text().splitlines() if line.startswith("peak "))
                    add(case | {"peak": int(peak.split()[1])})


def add(case: dict[str, Any]) -> None:
    """Store a case in the place of an earlier one, and print it."""
    names = ("model", "quantizer", "bits")
    kept = [one for one in stored() if any(one[name] != case[name] for name in names)]
    order = [(model, *one) for model in MODELS for one in CASES]
    with tempfile.TemporaryDirectory() as folder:
        total = forecast(case, Path(folder))
    runs = sorted([*kept, case | {"forecast": total}], key=lambda one: order.index(tuple(one[n] for n in names)))
    STORED.write_text(json.dumps({"format": 1, "unit": "bytes", "runs": runs}, indent=1) + "\n")
    sizes = f"{case['peak'] / 1e9:8.3f}{total / 1e9:8.3f}{total / case['peak'] - 1:+8.1%}"
    sys.stdout.write(f"{case['model']:24}{case['quantizer']:8}{case['bits']:3}{sizes}\n")
    sys.stdout.flush()


def load(model: str, quantizer: str, bits: str) -> None:
    """Load a model as the trainer does, in this process, and print its peak."""
    config = RunConfig.load(settings(quantizer, int(bits)) | {"model_name_or_path": model})
    from llf_core.models.lazy_imports import deferred_imports, prepare_imports

    prepare_imports()
    with deferred_imports(config):
        from llf_core import models
        from llf_core.training import session  # noqa: F401 - what a trainer has imported takes memory too
    from llf_core.training.past_run import peak_memory

    source = models.resolve_model(model, config)
    tokenizer = models.load_tokenizer(source, config)
    loaded = models.load_model(source, config, models.plan_device(config))
    sys.stdout.write(f"peak {peak_memory('cpu')}\n")
    del tokenizer, loaded


if __name__ == "__main__":
    main()
