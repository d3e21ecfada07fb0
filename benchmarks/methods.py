"""Memory, speed and loss of the methods: one model, one batch, equal tokens.

    python -m benchmarks.methods                                   all models and methods, one round
    python -m benchmarks.methods --models llama-1b --methods full,badam --rounds 2
    python -m benchmarks.methods --quick                           a tiny model and two steps, stored elsewhere

Each run is a trainer's process of its own (`benchmarks/runners/method.py`), on the same rows of 512 tokens, one a
step, with gradient checkpointing and one thread, whose processor time does not depend on other work on the machine.
Runs of a method and a model are added to those in `results/methods.json`; `--fresh` removes them first.
`python -m benchmarks.report` makes the tables of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.contender import metrics, read_steps
from benchmarks.models import random_model
from benchmarks.peers import versions
from benchmarks.processes import module, our_environment, run
from benchmarks.rows import HELD_OUT, MODEL, source

RESULTS = results.RESULTS.with_name("methods.json")
LENGTH, EVALUATED = 512, 4
LLAMA = {"head_dim": 64, "max_position_embeddings": 2048}
SHAPES: dict[str, dict[str, int]] = {
    MODEL: {},
    "llama-0.5b": LLAMA | {"hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 18,
                           "num_attention_heads": 24, "num_key_value_heads": 4},
    "llama-1b": LLAMA | {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
                         "num_attention_heads": 32, "num_key_value_heads": 4},
    "tiny": LLAMA | {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
                     "num_key_value_heads": 1},
}  # fmt: skip
"""Models: the embedded one, and Llamas of random weights with its tokenizer and tied embedding. `tiny` is for tests."""
STEPS = {MODEL: 16, "llama-0.5b": 3, "llama-1b": 2, "tiny": 2}
COMMON: dict[str, Any] = {
    "stage": "sft",
    "template": "chatml",
    "cutoff_len": LENGTH,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": True,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "threads": 1,
    "seed": 42,
}
WHOLE = {"finetuning_type": "full", "pure_bf16": True, "learning_rate": 2e-5}
ADAPTER = {"bf16": True, "learning_rate": 2e-4, "lora_rank": 8, "lora_target": "all"}
GALORE = WHOLE | {
    "use_galore": True,
    "galore_rank": 128,
    "galore_scale": 0.25,
    "galore_svd": "randomized",
    "learning_rate": 2e-4,
}
METHODS: dict[str, dict[str, Any]] = {
    "full": WHOLE | {"optim": "adamw_torch"},
    "full-float32": WHOLE | {"optim": "adamw_torch", "pure_bf16": False, "bf16": True},
    "freeze": WHOLE | {"finetuning_type": "freeze", "freeze_trainable_layers": 2},
    "lora": ADAPTER | {"finetuning_type": "lora"},
    "qlora": ADAPTER | {"finetuning_type": "lora", "quantization_bit": 4, "double_quantization": True},
    "galore": GALORE,
    "galore-layerwise": GALORE | {"galore_layerwise": True},
    "apollo": WHOLE | {"use_apollo": True, "apollo_rank": 128, "apollo_scale": 1.0, "learning_rate": 2e-4},
    "badam": WHOLE | {"use_badam": True},
}
"""Settings of the methods beside `COMMON`; learning rates are usual ones, not tuned."""


def write_rows(folder: Path, count: int, length: int = LENGTH) -> None:
    """Rows of more tokens than `length`, made of several rows of the source, so that each is truncated to it."""
    _, all_rows = source()
    folder.mkdir(parents=True)
    texts = [f"{row['instruction']} {row['input']}\n{row['output']}" for row in all_rows]
    parts = {"train": (texts[:-HELD_OUT], count), "held_out": (texts[-HELD_OUT:], EVALUATED)}
    for name, (own, rows) in parts.items():
        made = []
        for number in range(rows):
            answer, place = "", number * 7
            while len(answer) < 8 * length:  # characters: no token is longer on average
                answer += own[place % len(own)] + "\n\n"
                place += 1
            made.append({"instruction": f"Write text {number}.", "input": "", "output": answer})
        (folder / f"{name}.json").write_text(json.dumps(made))
    (folder / "dataset_info.json").write_text(json.dumps({name: {"file_name": f"{name}.json"} for name in parts}))


def write_mixed(folder: Path, count: int, together: int = 0) -> None:
    """Write the data set `train` of instructions as they are, most of them short.

    Args:
        together: so many of the longest are moved side by side to the middle, at a multiple of this number.
    """
    folder.mkdir()
    _, rows = source()
    chosen = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))[:count]]
    if together:
        ordered = sorted(range(count), key=lambda place: sum(map(len, map(str, chosen[place].values()))))
        longest, others = ordered[-together:], sorted(ordered[:-together])
        middle = count // 2 // together * together
        chosen = [chosen[place] for place in (*others[:middle], *longest, *others[middle:])]
    (folder / "train.json").write_text(json.dumps(chosen))
    (folder / "dataset_info.json").write_text(json.dumps({"train": {"file_name": "train.json"}}))


def train(name: str, settings: dict[str, Any], work: Path) -> dict[str, Any]:
    """Trains once, in a process that counts its tensors.

    Args:
        work: a folder with `home`, the `LLF_HOME` of the runs.

    Returns:
        Bytes (`weights`, `gradients`, `optimizer`, `base`, the process without a model, `peak` and the `forecast`),
        `steps` (`[seconds, tokens, trained tokens, loss]`), `cpu` (seconds of processor time of each step), and the
        held-out loss where there are held-out rows.
    """
    from llf_core.config import RunConfig
    from llf_core.runs import RunReader, create_run

    made = create_run(RunConfig.load(settings).yaml(defaults=True), name, work / "home")
    out = made.path / "counted.json"
    load = os.getloadavg()[0]
    done = run(module("benchmarks.runners.method", made.path, out), our_environment(work / "home"), made.log)
    events = list(RunReader(made).events())
    (memory,) = [event for event in events if event["type"] == "memory"]
    (started,) = [event["time"] for event in events if event.get("state") == "running"]
    steps, _ = read_steps(made)
    ends = [started, *(step[0] for step in steps)]
    losses = [round(values["eval_loss"], 5) for _, values in metrics(made) if "eval_loss" in values]
    return {
        "load": round(load, 1),
        **json.loads(out.read_text()),
        "forecast": memory["forecast"],
        "checkpointing": memory["gradient_checkpointing"],
        "tokens": memory["tokens"],
        "steps": [
            [round(step[0] - before, 4), *step[1:3], round(step[3], 5)]
            for before, step in zip(ends, steps, strict=False)
        ],
        **({"held_out": losses[-1]} if losses else {}),
        "wall_s": round(done.seconds, 1),
    }


def measure(model: str, method: str, folder: Path, work: Path, steps: int) -> dict[str, Any]:
    """Trains a method once.

    Args:
        work: a folder with rows and `home`.
    """
    settings = COMMON | METHODS[method] | {"max_steps": steps, "model_name_or_path": str(folder)}
    settings |= {"dataset": "train", "eval_dataset": "held_out", "dataset_dir": str(work / "rows")}
    return {"contender": method, "model": model} | train(f"{model}-{method}", settings, work)


def model_folder(model: str, work: Path, base: Path) -> Path:
    """The folder of a model; one of random weights is made, with the tokenizer of the base."""
    made = work / model
    return made if made.exists() else random_model(made, base, SHAPES[model]) if SHAPES[model] else base


def add(file: Path, found: dict[str, Any]) -> None:
    """Adds a run to the stored ones."""
    stored = results.read(file)
    group = stored["groups"].setdefault("memory", {"runs": []})
    number = sum(one["contender"] == found["contender"] and one["model"] == found["model"] for one in group["runs"])
    group["runs"].append({"contender": found.pop("contender"), "round": number} | found)
    write(file, stored)


def write(file: Path, stored: dict[str, Any]) -> None:
    """Writes the results, each run a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(results.text_of(stored))


def tell(found: dict[str, Any]) -> None:
    """Prints a run's figures."""
    parts = "".join(f"{found[name] / 1e9:9.3f}" for name in ("base", "weights", "gradients", "optimizer", "peak"))
    step = statistics.median(found["cpu"][1:])
    print(
        f"{found['model']:24}{found['contender']:18}{parts}{found['forecast'] / found['peak'] - 1:+8.1%}{step:9.2f} s"
        f"{found['held_out']:9.4f}",
        flush=True,
    )


def main() -> None:
    """Run the measurements that the options select."""
    from llf_core.models import resolve_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=f"{MODEL},llama-0.5b,llama-1b", help="separated by commas")
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, help="optimizer steps; default: 16 of the embedded model, fewer of others")
    parser.add_argument("--fresh", action="store_true", help="forget the stored runs of these models and methods")
    parser.add_argument("--quick", action="store_true", help="a tiny model, full and BAdam, stored in build/")
    parser.add_argument("--base", type=Path, help="a model's folder, in place of the embedded model")
    parser.add_argument("--work", type=Path, help="a folder that keeps models and runs; default: a temporary one")
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if asked.quick:
        asked.models, asked.methods, asked.fresh = "tiny", "full,badam", True
        if asked.results == RESULTS:
            asked.results = results.ROOT / "build" / "bench" / "methods.json"
    models, methods = asked.models.split(","), asked.methods.split(",")
    if unknown := (set(models) - set(SHAPES)) | (set(methods) - set(METHODS)):
        parser.error(f"There is no {', '.join(sorted(unknown))}. Choose from {', '.join((*SHAPES, *METHODS))}.")
    stored = results.read(asked.results)
    group = stored["groups"].setdefault("memory", {"runs": []})
    if asked.fresh:
        group["runs"] = [one for one in group["runs"] if one["model"] not in models or one["contender"] not in methods]
    group |= results.circumstances() | {"versions": {"llf": versions()}, "common": COMMON, "settings": METHODS}
    write(asked.results, stored)
    with tempfile.TemporaryDirectory(prefix="llf-methods-") as scratch:
        work = asked.work or Path(scratch)
        if not (work / "rows").exists():
            write_rows(work / "rows", max(STEPS.values()))
            (work / "home").mkdir()
        print(f"{'GB':42}" + "".join(f"{name:>9}" for name in ("base", "weights", "gradients", "state", "peak")))
        for model in models:
            folder = model_folder(model, work, asked.base or resolve_model(MODEL).path)
            for _ in range(asked.rounds):
                for method in methods:
                    found = measure(model, method, folder, work, asked.steps or STEPS[model])
                    tell(found)
                    add(asked.results, found)


if __name__ == "__main__":
    main()
