"""The memory forecast against the figures that LLaMA-Factory's paper prints, without a GPU and without torch.

    python -m benchmarks.estimate

Forecasts each cell of Table 4 (arXiv 2403.13372v4) from a config alone, on a GPU of 40 GB that need not be there.
Prints the table and writes `results/estimate.json` and `docs/estimate.md`.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import estimate_peaks, estimate_times, load_peaks, vision_peaks
from llf_core.config import RunConfig
from llf_core.estimate import Device, check_fit
from llf_core.estimate.devices import cards_of_place
from llf_core.estimate.example_lengths import of_lengths

if TYPE_CHECKING:
    from llf_core.estimate.fit_result import MemoryParts

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "estimate.md"
STORED = HERE / "results" / "estimate.json"
GIB = 1 << 30
"""The unit of the paper's column: full fine-tuning of Llama2-7B has 40.4e9 bytes of weights, gradients and state."""
A100 = Device("cuda", "NVIDIA A100-SXM4-40GB", 40 * GIB, int(39.4 * GIB), bf16=True)
GOAL = 0.15
PARTS = ("weights", "adapters", "gradients", "optimizer", "activations", "logits", "workspace")
LENGTHS = of_lengths(np.array([512]), 1000, basis="512 tokens a step.", exact=True)
MODELS: dict[str, dict[str, Any]] = {
    "Gemma-2B": {
        "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000,
    },
    "Llama2-7B": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False,
    },
    "Llama2-13B": {
        "model_type": "llama", "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
        "num_attention_heads": 40, "vocab_size": 32000, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""What the models' `config.json` say of their sizes."""
COMMON = {
    "stage": "pt", "dataset": "llf_demo", "cutoff_len": 512, "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1, "gradient_checkpointing": True, "learning_rate": 1e-5, "optim": "adamw_8bit",
    "max_steps": 100, "fast_path": False,
}  # fmt: skip
"""Settings of the paper's section 4.1; the fast path is off, since LLaMA-Factory computes all logits at once."""
WHOLE = {"pure_bf16": True, "finetuning_type": "full"}
ADAPTER = {"bf16": True, "finetuning_type": "lora", "lora_rank": 128, "lora_alpha": 256}
METHODS: dict[str, dict[str, object]] = {
    "Full": WHOLE,
    "Freeze": {**WHOLE, "finetuning_type": "freeze", "freeze_trainable_layers": 3},
    "GaLore": {**WHOLE, "use_galore": True, "galore_rank": 128, "galore_layerwise": True, "max_grad_norm": 0},
    "LoRA": ADAPTER,
    "QLoRA": {**ADAPTER, "quantization_bit": 4},
}


@dataclass(frozen=True)
class Cell:
    """A cell of the paper's table.

    Attributes:
        paper: GiB that the paper prints; None where it prints that memory did not suffice.
        parts: the forecast by part, in bytes.
    """

    model: str
    method: str
    paper: float | None
    parts: MemoryParts
    fits: bool

    @property
    def forecast(self) -> float:
        """The forecast in GiB."""
        return self.parts.total / GIB

    @property
    def error(self) -> float | None:
        """Forecast divided by the paper's figure, less 1; None without a figure."""
        return None if self.paper is None else self.forecast / self.paper - 1


def forecast(model: str, method: str, folder: Path) -> tuple[MemoryParts, bool]:
    """Forecast a cell from its config and the model's `config.json`."""
    (folder / "config.json").write_text(json.dumps(MODELS[model]))
    config = RunConfig.load({**COMMON, **METHODS[method], "model_name_or_path": str(folder)})
    found = check_fit(config, LENGTHS, (A100,))
    assert found.memory is not None
    return found.memory, found.rooms[0].fits


def cells() -> list[Cell]:
    """Every cell of the table: 14 with a figure, and full fine-tuning of 13 B, which the paper could not run."""
    with (HERE / "table4.toml").open("rb") as file:
        printed = tomllib.load(file)
    found = []
    for model in MODELS:
        figures = {name: gib for name, gib, _ in printed[model]}
        for method in METHODS:
            with tempfile.TemporaryDirectory() as folder:
                parts, fits = forecast(model, method, Path(folder))
            found.append(Cell(model, method, figures.get(method), parts, fits))
    return found


def page(found: list[Cell]) -> str:
    """The page of the documentation."""
    errors = [abs(cell.error) for cell in found if cell.error is not None]
    rows = [
        f"| model | method | paper | forecast | | {' | '.join(PARTS)} |",
        "|---" * (5 + len(PARTS)) + "|",
    ]
    for cell in found:
        paper = "out of memory" if cell.paper is None else f"{cell.paper:.2f}"
        error = ("does not fit" if not cell.fits else "fits") if cell.error is None else f"{cell.error:+.1%}"
        sizes = " | ".join(f"{getattr(cell.parts, name) / GIB:.2f}" for name in PARTS)
        rows.append(f"| {cell.model} | {cell.method} | {paper} | {cell.forecast:.2f} | {error} | {sizes} |")
    within = sum(error <= GOAL for error in errors)
    largest, mean = max(errors), sum(errors) / len(errors)
    return f"""# Forecasts

<!-- Generated by `python -m benchmarks.estimate`. -->

`llf estimate CONFIG`, `llf.estimate(config)` and the strip of the form forecast memory, disk and time of a run before
it starts. Nothing is downloaded and torch is not imported.

## Memory

The figures of Table 4 of LLaMA-Factory's paper (arXiv 2403.13372v4, one A100 of 40 GB) are the largest public set of
memory measurements with known settings. Each is forecast from a config and the model's `config.json`: 512 tokens,
bfloat16, 8-bit AdamW, activation checkpointing. The fast path is off, since LLaMA-Factory computes all logits at once.
Sizes are GiB.

{chr(10).join(rows)}

{within} of {len(errors)} figures are within {GOAL:.0%}; the largest error is {largest:.1%}, the mean {mean:.1%}.
Full fine-tuning of 13 B ran out of memory in the paper, and is forecast not to fit. The paper does not say in which
precision each method trains its weights; the forecasts assume bfloat16 alone (`pure_bf16`) for Full, Freeze and GaLore,
and float32 adapters for LoRA and QLoRA.

{published_section(published())}

{peaks_section()}

{vision_section()}

{loading_section()}

A run of the same settings corrects the forecast of the next one, since each run keeps its measured peak.

## Time

Before the first run on a machine, the time of a step is computed: its products by the speed of matrix products, on a
CPU the rest by that of sums, and a constant for each layer and example. Each run adds its mean step to
`LLF_HOME/past_runs.json`; the next forecast multiplies by how much similar runs differed from what was computed.
Similar means: the same device, and near in method, size of the model, tokens of a step and stage. A padded batch takes
the time of its longest example, and the encoder of images that of its patches.
{times_section()}"""


PUBLISHED: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {
    "Full (bf16 or fp16), 32 bits": ({"bf16": True, "finetuning_type": "full"}, (120, 240, 600, 1200)),
    "Full (pure_bf16), 16 bits": ({"pure_bf16": True, "finetuning_type": "full"}, (60, 120, 300, 600)),
    "LoRA, 16 bits": ({"bf16": True, "finetuning_type": "lora"}, (16, 32, 64, 160)),
    "QLoRA, 8 bits": ({"bf16": True, "finetuning_type": "lora", "quantization_bit": 8}, (10, 20, 40, 80)),
    "QLoRA, 4 bits": ({"bf16": True, "finetuning_type": "lora", "quantization_bit": 4}, (6, 12, 24, 48)),
}
"""The table of hardware requirements in LLaMA-Factory's README at `ff6d4d12e`: keys of the method, and GB by size."""
SIZES = ("7B", "14B", "30B", "70B")
ALONE: dict[str, object] = COMMON | {"optim": "adamw_torch_fused", "fast_path": True}
CARDS = "8 x H100 80GB"


def published() -> list[tuple[str, str, int, int, int]]:
    """LLaMA-Factory's figures beside ours: method, size, its GB, our bytes in one process, and on each of `CARDS`."""
    found = []
    one, cards = cards_of_place("1 x H100 80GB"), cards_of_place(CARDS)
    for name, (keys, figures) in PUBLISHED.items():
        shards = {} if keys.get("quantization_bit") == 8 else {"strategy": "fsdp2"}
        for size, figure in zip(SIZES, figures, strict=True):
            config = RunConfig.load({**ALONE, **keys, "model_name_or_path": f"model-{size}"})
            alone = check_fit(config, LENGTHS, (one,))
            each = check_fit(config.replace(num_processes=cards.count, **shards), LENGTHS, (cards,))
            assert alone.memory is not None
            found.append((name, size, figure, alone.memory.total, each.rooms[0].needed))
    return found


def published_section(found: list[tuple[str, str, int, int, int]]) -> str:
    """The part of the page about LLaMA-Factory's table of hardware requirements."""
    rows = [
        f"| {name} | {size} | {figure} | {alone / 1e9:.0f} | {alone / 1e9 / figure - 1:+.0%} | {each / 1e9:.0f} |"
        for name, size, figure, alone, each in found
    ]
    head = [f"| method | model | LLaMA-Factory | all | | each of {CARDS} |", "|---" * 6 + "|"]
    return f"""LLaMA-Factory's README estimates the memory of all cards together by the number of parameters alone:
18, 8, 2, 1 and 0.5 GB a billion. Beside it are forecasts of typical decoders of these sizes, 512 tokens a step with
activation checkpointing and AdamW: of one process, and of the peak of each of eight cards, with `strategy: fsdp2`
but for 8 bits. Ordinary weights are loaded by the first process alone, on the CPU; quantized ones by each, which is
its peak with 4 bits. Sizes are GB (1e9 bytes).

{chr(10).join([*head, *rows])}"""


def peak_rows() -> list[tuple[dict[str, Any], int]]:
    """The measured peaks of CPU runs, each with its forecast in bytes."""
    found = []
    for run in json.loads(estimate_peaks.STORED.read_text())["runs"]:
        with tempfile.TemporaryDirectory() as folder:
            found.append((run, estimate_peaks.forecast(run, Path(folder)).total))
    return found


def peaks_section() -> str:
    """The part of the page about the peaks of CPU runs."""
    found = peak_rows()
    errors = [total / run["peak"] - 1 for run, total in found]
    rows = ["| model | method | tokens | batch | checkpointing | peak | forecast | |", "|---" * 8 + "|"]
    for (run, total), error in zip(found, errors, strict=True):
        tokens = f"{min(run['lengths'])} to {max(run['lengths'])}" if "lengths" in run else run["length"]
        names = f"{run['model']} | {run['contender']} | {tokens} | {run['batch']}"
        checkpointing = "yes" if run["checkpointing"] else "no"
        rows.append(f"| {names} | {checkpointing} | {run['peak'] / GIB:.2f} | {total / GIB:.2f} | {error:+.1%} |")
    within = sum(abs(error) <= estimate_peaks.GOAL for error in errors)
    largest, mean = max(map(abs, errors)), sum(map(abs, errors)) / len(errors)
    return f"""On a CPU each configuration was trained for {estimate_peaks.STEPS} steps, or for
{estimate_peaks.MIXED_STEPS} on examples of the lengths of real instructions, whose longest batch comes in the middle.
The peak is the trainer's, in GiB (`python -m benchmarks.estimate_peaks`).

{chr(10).join(rows)}

{within} of {len(errors)} are within {estimate_peaks.GOAL:.0%}: the largest error is {largest:.1%}, the mean
{mean:.1%}."""


def vision_section() -> str:
    """The part of the page about the peaks of vision models."""
    runs = vision_peaks.stored()
    rows = ["| family | method | tower | images | peak | forecast | |", "|---" * 7 + "|"]
    errors = [run["forecast"] / run["peak"] - 1 for run in runs]
    for run, error in zip(runs, errors, strict=True):
        names = f"{run['family']} | {run['method']} | {'frozen' if run['frozen'] else 'trained'} | {run['images']}"
        rows.append(f"| {names} | {run['peak'] / GIB:.2f} | {run['forecast'] / GIB:.2f} | {error:+.1%} |")
    within = sum(abs(error) <= estimate_peaks.GOAL for error in errors)
    return f"""Vision models of random numbers: SmolLM2-135M's shape with a tower as large as CLIP's, whose images have
196 tokens, trained likewise with batches of one example (`python -m benchmarks.vision_peaks`).

{chr(10).join(rows)}

{within} of {len(errors)} are within {estimate_peaks.GOAL:.0%}: the largest error is {max(map(abs, errors)):.1%}."""


def loading_section() -> str:
    """The part of the page about the peaks while models are quantized."""
    runs = load_peaks.stored()
    rows = ["| model | quantizer | bits | peak | forecast | |", "|---" * 6 + "|"]
    errors = [run["forecast"] / run["peak"] - 1 for run in runs]
    for run, error in zip(runs, errors, strict=True):
        names = f"{run['model']} | {run['quantizer']} | {run['bits']}"
        rows.append(f"| {names} | {run['peak'] / GIB:.2f} | {run['forecast'] / GIB:.2f} | {error:+.1%} |")
    within = sum(abs(error) <= estimate_peaks.GOAL for error in errors)
    return f"""While a model is quantized as it is loaded, the pages of its weight files are resident beside the
quantized weights. The system drops them when memory is short, so they do not decide whether a run fits. The peak of a
process that loads a model (`python -m benchmarks.load_peaks`):

{chr(10).join(rows)}

{within} of {len(errors)} are within {estimate_peaks.GOAL:.0%}: the largest error is {max(map(abs, errors)):.1%}."""


def times_section() -> str:
    """The part of the page about the time of CPU runs; empty before `benchmarks.estimate_times` has measured any."""
    cases = estimate_times.stored()
    if not cases:
        return ""
    rows = ["| case | run | before | | after *Measure* | |", "|---" * 6 + "|"]
    for name, found in cases.items():
        shown = []
        for kind in estimate_times.GOALS:
            errors = estimate_times.errors(found, kind)
            spread = f"{min(errors):+.1%} to {max(errors):+.1%}" if len(errors) > 1 else ""
            shown.append(f"{estimate_times.error(found, kind):+.1%} | {spread}")
        rows.append(f"| {name} | {statistics.median(found['seconds']):.1f} s | {' | '.join(shown)} |")
    within = ", ".join(
        f"{sum(abs(estimate_times.error(found, kind)) <= goal for found in cases.values())} of {len(cases)} are within "
        f"{goal:.0%} {'before' if kind == 'before' else 'after *Measure*'}"
        for kind, goal in estimate_times.GOALS.items()
    )
    rounds = min(len(found["seconds"]) for found in cases.values())
    swing = max(max(found["seconds"]) / min(found["seconds"]) for found in cases.values()) - 1
    spread = f" The same run took up to {swing:.0%} longer in one round than in another." if rounds > 1 else ""
    return f"""
Each config is forecast on a new machine, then measured and forecast again, and then trained for {estimate_times.STEPS}
steps on a CPU, in {rounds} round{"s" * (rounds > 1)} (`python -m benchmarks.estimate_times`). An error is the median of
its rounds, with the range of several beside it. The machine is a virtual one, which shares its
memory with others.{spread}

{chr(10).join(rows)}

{within}.
"""


def main() -> None:
    """Print the table, and write the figures and the page."""
    found = cells()
    for cell in found:
        error = "" if cell.error is None else f"{cell.error:+.1%}"
        print(f"{cell.model:12}{cell.method:8}{cell.paper or float('nan'):8.2f}{cell.forecast:8.2f} {error}")
    rows = [
        {"model": cell.model, "method": cell.method, "paper": cell.paper, "fits": cell.fits, **vars(cell.parts)}
        for cell in found
    ]
    STORED.write_text(json.dumps({"format": 1, "unit": "bytes", "cells": rows}, indent=1) + "\n")
    PAGE.write_text(page(found))


if __name__ == "__main__":
    main()
