"""Step time and memory of 1, 2 and 4 processes on this machine, and what follows for cards that it does not have.

    python -m benchmarks.scale                 all runs, then the page
    python -m benchmarks.scale --models tiny   those of one model
    python -m benchmarks.scale --pairs 3       rounds of two processes against one with two threads
    python -m benchmarks.scale --page          the page alone

Each run is a full fine-tuning of a few steps in bfloat16 by gloo, one thread a process. Its median step and the largest
peak of its processes go to `results/scale.json`, in place of an earlier run of the same kind. The times of all runs are
fitted by least squares of the relative errors (`fit`); the page is `docs/scale.md`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls

from benchmarks import estimate_peaks, results
from benchmarks.methods import model_folder, write_rows
from benchmarks.peers import versions
from benchmarks.processes import ROOT, our_environment, run
from benchmarks.rows import MODEL
from llf_core.config import RunConfig
from llf_core.estimate import Forecaster, check_fit
from llf_core.estimate.devices import cards_of_place
from llf_core.estimate.example_lengths import of_lengths
from llf_core.estimate.strategies import Link
from llf_core.runs import RunReader, create_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.estimate import FitCheck

PAGE = ROOT / "docs" / "scale.md"
STORED = Path(__file__).parent / "results" / "scale.json"
MODELS = ("tiny", MODEL, "llama-0.5b")
CASES = (("ddp", 1), ("ddp", 2), ("fsdp2", 2), ("ddp", 4), ("fsdp2", 4))
LENGTH, STEPS, WARM = 256, 10, 2
MOST = {"llama-0.5b": 2}
"""Most processes of a model on a machine of 24 GB."""
COMMON: dict[str, Any] = {
    "stage": "sft", "template": "chatml", "dataset": "train", "finetuning_type": "full", "pure_bf16": True,
    "learning_rate": 1e-5, "cutoff_len": LENGTH, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False, "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no",
    "use_cpu": True, "seed": 42, "max_steps": STEPS, "threads": 1,
}  # fmt: skip

LORA: dict[str, Any] = {"finetuning_type": "lora", "pure_bf16": False, "bf16": True}
LENGTHS = of_lengths(np.array([LENGTH]), 1000, basis="", exact=True)
CORES = 2
FEW = 2
GIB = 1 << 30
CARD = "H100 80GB"
COUNTS = (8, 64, 1024)
PROSPECT: dict[str, Any] = {
    "stage": "sft", "dataset": "llf_demo", "finetuning_type": "full", "pure_bf16": True, "cutoff_len": 4096,
    "packing": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "max_steps": 100,
    "gradient_checkpointing": True,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "model_type": "llama", "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
LARGE: dict[str, dict[str, Any]] = {
    "8 B": LLAMA | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                    "num_attention_heads": 32},
    "70 B": LLAMA | {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
                     "num_attention_heads": 64},
    "400 B of experts": {
        "model_type": "qwen3_moe", "hidden_size": 6144, "intermediate_size": 2688, "moe_intermediate_size": 2688,
        "num_hidden_layers": 62, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
        "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Llama 3's shapes (arXiv 2407.21783, table 3), and a mixture of experts of 30 B active parameters."""


def measure(work: Path, model: str, processes: int, **changes: object) -> dict[str, Any]:
    """Train a config in several processes.

    Returns:
        `seconds` of each step after the first ones, and the largest `peak` of its processes in bytes.
    """
    from llf_core.models import resolve_model

    folder = model_folder(model, work, resolve_model(MODEL).path)
    if not (work / "rows").exists():
        write_rows(work / "rows", STEPS * max(count for _, count in CASES), length=LENGTH)
    with tempfile.TemporaryDirectory(prefix="llf-scale-") as scratch:
        home, peaks = Path(scratch) / "home", Path(scratch) / "peak"
        places = {"model_name_or_path": str(folder), "dataset_dir": str(work / "rows"), "num_processes": processes}
        made = create_run(RunConfig.load({**COMMON, **places, **changes}).yaml(defaults=True), "scale", home)
        ranks = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
        command = [sys.executable, *ranks, "-m", "benchmarks.scale_rank", str(made.path), str(peaks)]
        environment = our_environment(home) | {"PYTHONPATH": str(ROOT)}
        run(command, environment, made.log)
        seconds = RunReader(made).metrics().values("step_seconds")[WARM:]
        largest = max(json.loads(file.read_text()) for file in Path(scratch).glob("peak.*"))
    return {"seconds": [round(one, 4) for one in seconds.tolist()], "peak": largest}


def stored() -> dict[str, Any]:
    """What was measured; empty lists before."""
    found: dict[str, Any] = (
        json.loads(STORED.read_text()) if STORED.exists() else {"format": 1, "runs": [], "pairs": []}
    )
    return found


def add(key: dict[str, Any], found: dict[str, Any], load: float) -> None:
    """Stores a run in place of an earlier one of the same kind, and prints it."""
    now = stored() | results.circumstances() | {"versions": versions(), "common": COMMON}
    now["runs"] = [one for one in now["runs"] if any(one[name] != key[name] for name in key)]
    now["runs"].append(key | found | {"load": round(load, 1)})
    STORED.write_text(results.text_of(now))
    print(key, found, f"load {load:.1f}", flush=True)


def forecast(run: Mapping[str, Any]) -> Forecaster:
    """The forecast of a stored run from its config and the sizes of its model, with no past run to learn from."""
    with tempfile.TemporaryDirectory() as folder, estimate_peaks.without_past_runs(Path(folder)):
        (Path(folder) / "config.json").write_text(json.dumps(estimate_peaks.shape(run["model"])))
        model = MODEL if run["model"] == MODEL else folder
        shares = {"num_processes": run["processes"], "strategy": run["contender"]}
        config = RunConfig.load(COMMON | shares | {"model_name_or_path": model, "dataset": "llf_demo"})
        return Forecaster(config, LENGTHS, estimate_peaks.CPU)


@dataclass(frozen=True)
class Fit:
    """What the steps of gloo's processes on this machine take.

    Attributes:
        compute: seconds of a step in one process, by model.
        bandwidth: bytes a second that each process sends.
        hop: seconds of a call for each other process.
    """

    compute: dict[str, float]
    bandwidth: float
    hop: float

    def seconds(self, run: Mapping[str, Any]) -> float:
        """Seconds of a step of a run: computing and sending, which share the cores."""
        sent, hops = amounts(run)
        return crowd(run) * (self.compute[run["model"]] + sent / self.bandwidth + hops * self.hop)


def crowd(run: Mapping[str, Any]) -> float:
    """How many times as long processes take that have to share cores."""
    return max(1.0, run["processes"] / CORES)


def amounts(run: Mapping[str, Any]) -> tuple[float, float]:
    """Bytes that each process sends in a step, and the number of hops of its calls."""
    step = forecast(run).step
    assert step is not None
    bytes_alone = Link(bandwidth=1.0, network=1.0, machine=1 << 20, hop=0.0, tree_hop=0.0)
    hops_alone = Link(bandwidth=math.inf, network=math.inf, machine=1 << 20, hop=1.0, tree_hop=1.0)
    return step.traffic(1, bytes_alone).seconds, step.traffic(1, hops_alone).seconds


def fit(runs: Sequence[Mapping[str, Any]]) -> Fit:
    """Fit all runs by least squares of the relative errors, with no negative time."""
    models = sorted({one["model"] for one in runs})
    rows = []
    for one in runs:
        shares = [float(one["model"] == model) for model in models]
        rows.append([crowd(one) * value / best(one) for value in (*shares, *amounts(one))])
    scale = np.array(rows).max(axis=0)
    found = nnls(np.array(rows) / scale, np.ones(len(rows)))[0] / scale
    by_byte, hop = float(found[-2]), float(found[-1])
    return Fit(dict(zip(models, map(float, found), strict=False)), 1 / by_byte if by_byte else math.inf, hop)


def best(run: Mapping[str, Any]) -> float:
    """The shortest step of a run, which other programs on the machine have disturbed least."""
    return float(min(run["seconds"]))


def fit_section(runs: Sequence[Mapping[str, Any]]) -> str:
    """The part of the page about the runs on this machine."""
    every = fit(runs)
    before = fit([one for one in runs if one["processes"] <= FEW])
    columns = "model | strategy | processes | step | fitted | | from 1 and 2 alone | peak | forecast | | load"
    rows = [f"| {columns} |", "|---" * 11 + "|"]
    errors, unseen, memory = [], [], []
    for one in runs:
        seconds, fitted, predicted = best(one), every.seconds(one), before.seconds(one)
        parts = forecast(one).memory()[0]
        assert parts is not None
        several = one["processes"] > 1
        errors.append(fitted / seconds - 1)
        unseen += [predicted / seconds - 1] if one["processes"] > FEW else []
        memory += [parts.total / one["peak"] - 1] if several else []
        shown = f"{predicted / seconds - 1:+.0%}" if one["processes"] > FEW else ""
        sizes = f"{one['peak'] / GIB:.2f} | {parts.total / GIB:.2f} | {parts.total / one['peak'] - 1:+.1%}"
        rows.append(
            f"| {one['model']} | {one['contender'] if several else ''} | {one['processes']} "
            f"| {seconds:.2f} s | {fitted:.2f} s | {errors[-1]:+.0%} | {shown} | {sizes} | {one['load']} |"
        )
    error, largest = statistics.fmean(map(abs, errors)), max(map(abs, errors))
    missed = max(map(abs, unseen), default=0.0)
    return f"""{chr(10).join(rows)}

The fit is {every.bandwidth / 1e9:.2f} GB/s for each process and {every.hop * 1e3:.2f} ms a hop, beside the seconds of
one process by model. Its mean error is {error:.0%}, its largest {largest:.0%}. Fitted to 1 and 2 processes alone, it
misses 4 by up to {missed:.0%}. The forecasts of memory of several processes are within {max(map(abs, memory)):.1%}."""


def pairs_section(pairs: Sequence[Mapping[str, Any]]) -> str:
    """The part of the page about two processes beside one with two threads; empty before they were measured."""
    if not pairs:
        return ""
    ratios = [one["one"] / one["two"] for one in pairs]
    loads = ", ".join(str(one["load"]) for one in pairs)
    spread = f", {min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else ""
    rounds = f"{len(ratios)} round{'s' if len(ratios) > 1 else ''}"
    return f"""
Two processes of one thread have {statistics.median(ratios):.2f}{spread} of the speed of one of two threads: LoRA of
{MODEL} on the same 4 examples a step, in turns ({rounds}, load {loads}).
"""


@functools.cache
def prospect(model: str, cards: int, strategy: str) -> FitCheck:
    """Forecast full fine-tuning of a model on cards, each with packed rows of 4,096 tokens."""
    with tempfile.TemporaryDirectory() as folder, estimate_peaks.without_past_runs(Path(folder)):
        (Path(folder) / "config.json").write_text(json.dumps(LARGE[model]))
        places = {"model_name_or_path": folder, "num_processes": cards, "strategy": strategy}
        config = RunConfig.load(PROSPECT | places)
        return check_fit(config, of_lengths(np.array([4096]), 1000, basis="", exact=True), (cards_of_place(CARD),))


def prospect_section() -> str:
    """The part of the page about cards that this machine does not have."""
    columns = "model | cards | strategy | weights | gradients, optimizer | activations | communication | total"
    rows = [f"| {columns} | step | waiting | tokens/s |", "|---" * 11 + "|"]
    for model, cards, strategy in itertools.product(LARGE, COUNTS, ("ddp", "fsdp2")):
        found = prospect(model, cards, strategy)
        parts, time = found.memory, found.duration
        assert parts is not None
        assert time is not None
        state = parts.gradients + parts.optimizer
        rest = parts.activations + parts.logits + parts.workspace
        total = f"{parts.total / 1e9:.0f}{'' if parts.total <= found.rooms[0].usable else ' (too much)'}"
        sizes = " | ".join(f"{one / 1e9:.1f}" for one in (parts.weights, state, rest, parts.communication))
        speed = f"{time.step_seconds:.2f} s | {waiting(found):.0%} | {time.tokens_per_second:,.0f}"
        rows.append(f"| {model} | {cards:,} | {strategy} | {sizes} | {total} | {speed} |")
    return chr(10).join(rows)


def waiting(found: FitCheck) -> float:
    """Share of a step in which a card waits for the link."""
    assert found.duration is not None
    return 1 - found.duration.computed / found.duration.step_seconds


def breaks_first() -> str:
    """For each model, what ends its growth first, by the figures of the table."""
    lines = []
    for model in LARGE:
        copied, few, many = prospect(model, 8, "ddp"), prospect(model, 64, "fsdp2"), prospect(model, 1024, "fsdp2")
        assert copied.memory is not None
        assert few.memory is not None
        assert many.duration is not None
        assert few.loading is not None
        ddp = f"DDP needs {copied.memory.total / 1e9:,.0f} GB a card, however many there are"
        whole = f"{few.loading.total / 1e9:,.0f} GB"
        loads = f"the first process holds all {whole} of weights on the CPU while it loads them"
        if few.memory.total <= few.rooms[0].usable:
            tokens = many.duration.tokens_per_second * many.duration.step_seconds
            told = (
                f"with FSDP2 memory holds on 64 cards ({loads}), and on 1,024 the batch breaks first: "
                f"{tokens / 1e6:.1f} million tokens a step"
            )
        else:
            told = (
                "with FSDP2 gathering breaks first: all experts of a layer are gathered for the few that are used, "
                f"{few.memory.communication / 1e9:,.0f} GB ({loads})"
            )
        lines.append(f"- **{model}.** {ddp}; {told}. On 1,024 cards a step waits {waiting(many):.0%} of its time.")
    return chr(10).join(lines)


def page() -> str:
    """The page of the documentation."""
    now = stored()
    return f"""# Several processes: time and memory

<!-- Generated by `python -m benchmarks.scale`. -->

## On this machine

Full fine-tuning in bfloat16, one example of {LENGTH} tokens and one thread a process, by gloo on {CORES} cores. Other
programs ran on the machine (the load is in the table), so that a step is the shortest of {STEPS - WARM}, and errors of
the fit are theirs too. It is fitted as

    step = max(1, processes / cores) x (computation + bytes sent / bandwidth + hops x time of a hop)

where bytes and hops are those of `llf_core.estimate.strategies.traffic`: on a CPU the same cores compute and send, so
that nothing is hidden. Peaks are those of the process that needs most, in GiB.

{fit_section(now["runs"])}
{pairs_section(now["pairs"])}
## On cards that this machine does not have

Forecasts, not measurements: full fine-tuning in bfloat16 (`pure_bf16`) with gradient checkpointing, 4,096 tokens a
card and step, on {CARD} cards, eight to a machine. Sizes are GB of each card, without loading. Bandwidths
and hops are those of `llf_core/estimate/cards.toml` and `strategies.py`; computation reaches 40 % of the data sheet's
speed. What is sent beside the computation is hidden; a step *waits* for the rest. Tensor, pipeline and expert
parallelism are not built.

{prospect_section()}

### What breaks first

{breaks_first()}
"""


def main() -> None:
    """Measure what the options select, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="separated by commas")
    parser.add_argument("--pairs", type=int, default=0, help="rounds of two processes against one with two threads")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    parser.add_argument("--work", type=Path, help="a folder that keeps the models; default: a temporary one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llf-scales-") as scratch:
        work = asked.work or Path(scratch)
        for model in () if asked.page or asked.pairs else asked.models.split(","):
            for strategy, processes in CASES:
                if processes <= MOST.get(model, processes):
                    load = os.getloadavg()[0]
                    changes = {"strategy": strategy} if processes > 1 else {}
                    key = {"contender": strategy, "model": model, "processes": processes}
                    add(key, measure(work, model, processes, **changes), load)
        for _ in range(asked.pairs):
            load = os.getloadavg()[0]
            one = measure(work, MODEL, 1, **LORA, threads=2, per_device_train_batch_size=4)
            two = measure(work, MODEL, 2, **LORA, per_device_train_batch_size=2)
            now = stored()
            now["pairs"].append({"contender": "pair", "one": best(one), "two": best(two), "load": round(load, 1)})
            STORED.write_text(results.text_of(now))
            print(now["pairs"][-1], flush=True)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
