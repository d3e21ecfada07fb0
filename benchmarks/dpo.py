"""DPO by LLF beside LLaMA-Factory's and TRL's: the same pairs, measured in turns as `benchmarks.sft` does.

    python -m benchmarks.dpo                      all contenders; a part of `make bench`
    python -m benchmarks.dpo --rounds 1 --add     one more round of what is stored already
    python -m benchmarks.dpo --quick              a smoke test of a few steps, stored elsewhere
    python -m benchmarks.dpo --search trl         finds how a contender's step is best split, and writes it to its file

All start from one adapter and see the same pairs in the same order, four a step, once through: 192 tokens of question,
64 of each answer. Results are merged into `results/dpo.json` after every round.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks import results, search
from benchmarks.contender import Bench, settings_file, train
from benchmarks.peers import FOLDER, LLAMA_FACTORY, peer_environment
from benchmarks.processes import module, our_environment, plain_environment, run
from benchmarks.ratios import FIRST, distances, first_losses
from benchmarks.sft import about, prepare, tell, trained_round

NAMES = ("llf-dpo", "llamafactory-dpo-default", "llamafactory-dpo-best", "trl-dpo", "trl-dpo-precomputed")
EXACT = ("llf-dpo", "llamafactory-dpo-best", "trl-dpo")
ROWS, ROUNDS = 64, 5
SECONDS = {  # of one run, for the estimate; measured ones take their place
    "llf-dpo": 45, "llamafactory-dpo-default": 140, "llamafactory-dpo-best": 120, "trl-dpo": 150,
    "trl-dpo-precomputed": 130,
}  # fmt: skip


def held_out(runs: list[dict[str, Any]], bench: Bench) -> dict[str, dict[str, float]]:
    """The loss of each contender's result on held-out pairs, and the means of its margins and accuracies."""
    out = bench.work / "held-out.json"
    named = [f"{one['contender']}={one['output']}" for one in runs if "output" in one]
    beta = yaml.safe_load(settings_file(NAMES[0]).read_text())["pref_beta"]
    files = (bench.facts["model"], bench.rows / "held_out.jsonl", beta, out)
    run(module("benchmarks.runners.heldout_pairs", *files, *named), plain_environment(), bench.work / "held-out.log")
    found = json.loads(out.read_text())
    columns = {"held_out": "loss", "margins": "margin", "accuracies": "accuracy"}
    return {name: {who: round(one[key], 5) for who, one in found.items()} for name, key in columns.items()}


def exact(bench: Bench) -> dict[str, list[float]]:
    """The losses of a few steps in float32, where rounding hides nothing."""
    copy = bench.work / "float32"
    command = module("benchmarks.runners.float32", bench.facts["model"], copy)
    run(command, our_environment(bench.home), bench.work / "float32.log")
    bench = replace(bench, facts=bench.facts | {"model": str(copy)})
    changes = {"bf16": False, "max_steps": FIRST}
    return {name: [step[3] for step in train(name, bench, changes)["steps"]] for name in EXACT}


def measure(asked: argparse.Namespace, bench: Bench) -> None:
    """Runs all contenders in turns, and stores them after every round."""
    made = about(bench, NAMES) | {"runs": []}
    if asked.add:
        made = results.continued(asked.results, "dpo", made)
    first = 1 + max((one["round"] for one in made["runs"]), default=-1)
    for number in range(first, first + asked.rounds):
        runs = trained_round(NAMES, number, bench, bare="llf-dpo")
        if number == 0:
            found: dict[str, Any] = held_out(runs, bench)
            found["exact"] = exact(bench)
            made |= found
            print(f"  held out, and in float32: {json.dumps(found)}", flush=True)
        for one in runs:
            one.pop("output", None)
        made["runs"] += runs
        results.store(asked.results, "dpo", made)


def main() -> None:
    """Run the measurements that the options select."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--add", action="store_true", help="add the rounds to those that are stored")
    parser.add_argument("--rows", type=int, default=ROWS, help="pairs that each run learns from, once")
    parser.add_argument("--quick", action="store_true", help="one round of a few steps, stored in build/")
    parser.add_argument("--search", choices=("llamafactory", "trl"), help="find the best split of a contender's step")
    parser.add_argument("--data", type=Path, help="preferences like LLaMA-Factory's; else dpo_en_demo")
    parser.add_argument("--results", type=Path, default=results.PAIRS)
    parser.add_argument("--peer-env", type=Path, default=FOLDER)
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds, asked.rows, asked.results = 1, 24, results.ROOT / "build" / "bench" / "dpo.json"
    peer_environment(asked.peer_env)
    with tempfile.TemporaryDirectory(prefix="llf-bench-") as scratch:
        bench = prepare(asked, asked.rows, Path(scratch) / "dpo", "benchmarks.pairs")
        if asked.search:
            search.find(f"{asked.search}-dpo", bench, asked.rounds)
            return
        minutes = asked.rounds * sum(SECONDS.values()) * asked.rows / ROWS / 60
        print(f"{asked.rounds} rounds of DPO beside {LLAMA_FACTORY}: about {minutes:.0f} minutes.", flush=True)
        if os.getloadavg()[0] > 0.5:
            print(f"The machine is busy (load {os.getloadavg()[0]:.1f}): expect figures of no use.", flush=True)
        start = time.time()
        measure(asked, bench)
    print(f"Took {(time.time() - start) / 60:.0f} minutes. Ratios in {asked.results}:")
    stored = results.read(asked.results)
    tell(stored)
    for name, distance in distances(first_losses(stored["groups"]["dpo"]), NAMES[0]).items():
        print(f"{name}: the losses of the first steps are at most {distance:.4f} from ours")


if __name__ == "__main__":
    main()
