"""The memory forecast of vision models against the measured peak of CPU runs: towers frozen or trained, 1 or 4 images.

    python -m benchmarks.vision_peaks                    all configurations, one run each
    python -m benchmarks.vision_peaks --families llava   those of one family
    python -m benchmarks.vision_peaks --forecasts        forecasts the stored configurations again, without training

Models of random numbers in the shape of SmolLM2-135M's text model and a vision tower of CLIP's base size, whose images
have 196 tokens in the text, are trained for four steps. The trainer keeps its peak in `past_runs.json`. Peaks and
forecasts go to `results/vision_peaks.json`, in place of earlier ones of the same configuration, and
`python -m benchmarks.estimate` shows them in `docs/estimate.md`. Qwen2.5-VL's processor needs torchvision.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.estimate_peaks import CPU, measure, without_past_runs
from benchmarks.vision_models import SAVERS, SIDES
from llf_core.config import RunConfig
from llf_core.data.text_lengths import lengths_from_text
from llf_core.estimate import check_fit

STORED = Path(__file__).parent / "results" / "vision_peaks.json"
ROWS = 16
COMMON: dict[str, Any] = {
    "stage": "sft", "max_steps": 4, "cutoff_len": 1024, "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1, "gradient_checkpointing": False, "logging_steps": 1, "save_strategy": "no",
    "use_cpu": True, "seed": 42,
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"finetuning_type": "lora", "lora_rank": 8, "bf16": True, "learning_rate": 2e-4},
    "full": {"finetuning_type": "full", "pure_bf16": True, "learning_rate": 2e-5},
}
CASES = (("lora", True, 1), ("lora", True, 4), ("lora", False, 1), ("lora", False, 4), ("full", True, 1),
         ("full", False, 1), ("full", False, 4))  # fmt: skip
"""Method, whether the tower is frozen, and the images of an example."""


def main() -> None:
    """Run the cases that the options select, print each and store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(SAVERS), help="separated by commas")
    parser.add_argument("--forecasts", action="store_true", help="train nothing, and forecast what is stored again")
    asked = parser.parse_args()
    families = asked.families.split(",")
    if unknown := set(families) - set(SAVERS):
        parser.error(f"There is no {', '.join(sorted(unknown))}. Choose from {', '.join(SAVERS)}.")
    for family in families:
        with tempfile.TemporaryDirectory(prefix="llf-vision-") as scratch:
            model, data = Path(scratch) / "model", Path(scratch) / "data"
            SAVERS[family](model)
            data.mkdir()
            for method, frozen, images in CASES:
                key = {"family": family, "method": method, "frozen": frozen, "images": images}
                write_rows(data, SIDES[family], images)
                settings = COMMON | METHODS[method] | {"freeze_vision_tower": frozen, "media_dir": str(data)}
                peak = _stored_peak(key) if asked.forecasts else measure(model, settings, data)
                if peak is not None:
                    add(key | {"peak": peak, "forecast": forecast(model, settings, data)})


def write_rows(folder: Path, side: int, images: int) -> None:
    """Write the data set `train`, each of whose examples has as many images, with sides of `side` pixels."""
    import numpy as np
    from PIL import Image

    dots = np.random.default_rng(0).integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    names = [f"{number}.png" for number in range(images)]
    for name, image in zip(names, dots, strict=True):
        Image.fromarray(image).save(folder / name)
    row = {"instruction": "<image>" * images + "What is it?", "output": "It is noise.", "images": names}
    (folder / "train.json").write_text(json.dumps([row] * ROWS))
    columns = {"prompt": "instruction", "response": "output", "images": "images"}
    told = {"train": {"file_name": "train.json", "columns": columns}}
    (folder / "dataset_info.json").write_text(json.dumps(told))


def forecast(model: Path, settings: dict[str, Any], data: Path) -> int:
    """The forecast of a case in bytes, with no past run to learn from."""
    config = RunConfig.load(settings | {"model_name_or_path": str(model), "dataset": "train", "dataset_dir": str(data)})
    with tempfile.TemporaryDirectory(prefix="llf-vision-") as home, without_past_runs(Path(home)):
        found = check_fit(config, lengths_from_text(config), (CPU,))
    assert found.memory is not None
    return found.memory.total


def stored() -> list[dict[str, Any]]:
    """The stored configurations, each with its peak and forecast in bytes."""
    return json.loads(STORED.read_text())["runs"] if STORED.exists() else []


def _stored_peak(key: dict[str, Any]) -> int | None:
    """The peak of a configuration; None if it is not stored."""
    return next((one["peak"] for one in stored() if key.items() <= one.items()), None)


def add(run: dict[str, Any]) -> None:
    """Store a configuration in the place of an earlier result of the same one, and print it."""
    case = ("method", "frozen", "images")
    runs = [one for one in stored() if any(one[name] != run[name] for name in ("family", *case))]
    order = {name: number for number, name in enumerate(SAVERS)}
    runs = sorted([*runs, run], key=lambda one: (order[one["family"]], CASES.index(tuple(map(one.get, case)))))
    STORED.write_text(json.dumps({"format": 1, "unit": "bytes", "runs": runs}, indent=1) + "\n")
    tower = "frozen" if run["frozen"] else "trained"
    figures = f"peak {run['peak'] / 2**30:5.2f} GiB, forecast {run['forecast'] / 2**30:5.2f}"
    error = f"{run['forecast'] / run['peak'] - 1:+.1%}"
    sys.stdout.write(
        f"{run['family']:11}{run['method']:5} tower {tower:8}{run['images']} images: {figures} ({error})\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
