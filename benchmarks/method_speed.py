"""The speed of LoRA, OFT, GaLore and BAdam beside LLaMA-Factory and the libraries that first had them.

    python -m benchmarks.method_speed [--rounds 2] [--only lora,oft]

The embedded model, one row of 512 tokens a step, no gradient checkpointing, trained weights in float32 with bfloat16
products. All contenders of a method run in turns, each in a process of its own with one thread, whose processor time
is compared: it hardly depends on what else the machine does. Rounds are added to those that are
stored in `results/methods.json`, unless `--fresh` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks import contender, methods, results
from benchmarks.contender import Bench
from benchmarks.method_claims import cpu_seconds
from benchmarks.methods import LENGTH, RESULTS, write, write_rows
from benchmarks.peers import FOLDER, peer_environment, versions
from benchmarks.rows import MODEL, examples

STEPS, THREADS = 6, 1
RATE = 1e-4
SHARED = {
    "cutoff_len": LENGTH,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_steps": STEPS,
    "lr_scheduler_type": "constant",
    "learning_rate": RATE,
}
OURS = {"gradient_checkpointing": False, "use_cpu": True, "threads": THREADS}
FACTORY = {"disable_gradient_checkpointing": True}
PROJECTED = ("q_proj", "k_proj", "v_proj", "o_proj")
"""Weights that GaLore projects: the SVDs of all would take minutes of processor time in each contender's first step."""
GALORE = {
    "galore_target": ",".join(PROJECTED),
    "galore_rank": 128,
    "galore_update_interval": 200,
    "galore_scale": 0.25,
}
BADAM = {"badam_mode": "layer", "badam_switch_mode": "ascending", "badam_switch_interval": 50}
KEYS: dict[str, dict[str, Any]] = {
    "lora": {"finetuning_type": "lora"},
    "oft": {"finetuning_type": "oft", "oft_block_size": 32},
    "galore": {"finetuning_type": "full", "use_galore": True, "optim": "adamw_torch", **GALORE},
    "badam": {"finetuning_type": "full", "use_badam": True, **BADAM},
}
"""Keys that LLF and LLaMA-Factory share."""
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("peft", {}),
    "oft": ("trainer-full", {"model": {"dtype": "bfloat16"},
                             "oft": {"oft_block_size": 32, "target_modules": "all-linear"}}),
    "galore": ("trainer-full", {"galore": {"targets": list(PROJECTED), "rank": 128, "update_proj_gap": 200,
                                           "scale": 0.25, "proj_type": "std"}}),
    "badam": ("trainer-full", {"model": {"dtype": "bfloat16"},
                               "badam": {"switch_block_every": 50, "switch_mode": "ascending"}}),
}  # fmt: skip
"""Settings file of transformers' Trainer with PEFT or with the authors' package, and what is changed in it."""


def contenders(method: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Settings file and changed settings of each contender of a method, by its name in the table."""
    file, changes = PLAIN[method]
    plain = {key: value for key, value in SHARED.items() if key != "cutoff_len"} | changes
    return {
        "llf": ("llf", SHARED | OURS | KEYS[method]),
        "llamafactory": ("llamafactory-default", SHARED | FACTORY | KEYS[method]),
        "plain": (file, plain),
    }


def prepare(work: Path, peer: Path) -> Bench:
    """Rows in both forms, and the folders of a benchmark."""
    from llf_core.models import resolve_model

    write_rows(work / "rows", STEPS)
    made = examples("train", work / "rows", cutoff_len=LENGTH)
    rows = [{"input_ids": list(row["input_ids"]), "labels": list(row["labels"])} for row in made]
    (work / "rows" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "home").mkdir()
    model = resolve_model(MODEL).path
    (work / "home" / "models").symlink_to(model.parent)
    return Bench(work, {"model": str(model)}, peer / "bin" / "python", THREADS)


def counted(bench: Bench, file: str, changes: dict[str, Any]) -> dict[str, Any]:
    """One run of LLF."""
    settings = yaml.safe_load(contender.settings_file(file).read_text()) | changes
    return methods.train("speed", settings | {"dataset": "train", "dataset_dir": str(bench.rows)}, bench.work)


def measure(method: str, number: int, bench: Bench) -> list[dict[str, Any]]:
    """One run of each contender of a method, in an order that the round's number rotates."""
    every = list(contenders(method).items())
    turn = number % len(every)
    runs = []
    for name, (file, changes) in every[turn:] + every[:turn]:
        load = os.getloadavg()[0]
        if name == "llf":
            found = counted(bench, file, changes)
        else:
            found = contender.train(file, bench, changes)
            del found["output"]
        runs.append({"contender": name, "method": method, "round": number, "load": round(load, 1)} | found)
        print(f"  round {number + 1}  {method:8}{name:14}{cpu_seconds(found):7.3f} s a step", flush=True)
    return runs


def main() -> None:
    """Run the measurements that the options select."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(KEYS), help=f"methods, separated by commas: {', '.join(KEYS)}")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="forget the stored runs of these methods")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--peer-env", type=Path, default=FOLDER)
    asked = parser.parse_args()
    chosen = asked.only.split(",")
    if unknown := set(chosen) - set(KEYS):
        parser.error(f"There is no method {', '.join(sorted(unknown))}. Choose from {', '.join(KEYS)}.")
    peer_environment(asked.peer_env)
    with tempfile.TemporaryDirectory(prefix="llf-method-speed-") as scratch:
        bench = prepare(Path(scratch), asked.peer_env)
        for _ in range(asked.rounds):
            for method in chosen:
                group = results.read(asked.results)["groups"].get("speed", {"runs": []})
                if asked.fresh:
                    group["runs"] = [one for one in group["runs"] if one["method"] != method]
                number = 1 + max((one["round"] for one in group["runs"] if one["method"] == method), default=-1)
                runs = measure(method, number, bench)
                stored = results.read(asked.results)  # runs of another benchmark may have been added meanwhile
                settings = {name: dict(zip(("file", "changes"), one, strict=True))
                            for name, one in contenders(method).items()}  # fmt: skip
                made = results.circumstances() | {"runs": group["runs"] + runs}
                made["versions"] = {"llf": versions(), "llamafactory": versions(bench.peer_python)}
                made["settings"] = group.get("settings", {}) | {method: settings}
                stored["groups"]["speed"] = made
                write(asked.results, stored)
            asked.fresh = False


if __name__ == "__main__":
    main()
