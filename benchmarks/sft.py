"""LLF beside LLaMA-Factory, TRL and plain transformers: the same training, measured in turns.

    python -m benchmarks.sft                      all groups; `make bench`
    python -m benchmarks.sft --only sft,decode    some of them; the others stay as they are stored
    python -m benchmarks.sft --only sft --rounds 1 --add    one more round of what is stored already
    python -m benchmarks.sft --quick              a smoke test of a few steps, stored elsewhere
    python -m benchmarks.sft --search llamafactory    finds the contender's best batch and writes it to its file
    python -m benchmarks.sft --sweep              LLF alone: cost against length, batch, rank and model size

Every contender runs in a process of its own, on the same rows, once through (so the budget of tokens is the same for
all), once a round; rounds rotate the order. Results are merged into `results/sft.json` after every round;
`python -m benchmarks.report` makes `docs/benchmarks.md` of them. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks import results, search, startup, sweep
from benchmarks.contender import Bench, settings_file, settings_hash, train
from benchmarks.peers import FOLDER, LLAMA_FACTORY, peer_environment, versions
from benchmarks.processes import module, our_environment, plain_environment, run
from benchmarks.ratios import counted, disagreement, step_seconds, tokens_per_second

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUPS = {
    "sft": ("llf", "llamafactory-default", "peft"),
    "packed": ("llf-packed", "llamafactory-best", "trl"),
    "full": ("llf-full", "trainer-full"),
    "qlora": ("llf-qlora", "trainer-qlora"),
    "decode": ("llf", "transformers"),
    "startup": ("llf", "llamafactory"),
}
# Seconds of one run on two cores of an EPYC without AMX, for the estimate; measured ones take their place.
SECONDS = {
    "llf": 180, "llf-packed": 110, "llamafactory-default": 560, "llamafactory-best": 220, "trl": 270, "peft": 470,
    "llf-full": 60, "trainer-full": 150, "llf-qlora": 60, "trainer-qlora": 130, "transformers": 40,
    "llamafactory": 25,
}  # fmt: skip
# Rows that each run of a group trains on, once: of the demo set's they make 40 optimizer steps or a few more.
ROWS = {"sft": 320, "packed": 232, "full": 80, "qlora": 80}
ROUNDS = 5
NEW_TOKENS, PROMPTS = 64, 7


def estimate(asked: argparse.Namespace) -> float:
    """Seconds that all asked groups will take, from the stored runs where there are some."""
    stored, total = results.read(asked.results)["groups"], 0.0
    for group in asked.only:
        walls = {run["contender"]: run.get("wall_s", 0.0) for run in stored.get(group, {}).get("runs", ())}
        scale = asked.rows / ROWS[group] if asked.rows and group in ROWS else 1.0
        rounds = asked.rounds + (group == "startup")
        for name in GROUPS[group]:
            fresh = {"decode": 40, "startup": 25}.get(group, SECONDS[name]) * scale
            total += rounds * (walls.get(name) or fresh)
    return total


def prepare(asked: argparse.Namespace, count: int, work: Path, maker: str = "benchmarks.rows") -> Bench:
    """So many rows as a module makes them, model and folders."""
    source = [str(asked.data)] if asked.data else []
    work.mkdir()
    run(module(maker, work / "rows", count, *source), plain_environment(), work / "rows.log")
    facts = json.loads((work / "rows" / "facts.json").read_text())
    (work / "home").mkdir()
    (work / "home" / "models").symlink_to(Path(facts["model"]).parent)
    return Bench(work, facts, asked.peer_env / "bin" / "python")


def trained_round(names: tuple[str, ...], number: int, bench: Bench, bare: str = "llf-packed") -> list[dict[str, Any]]:
    """One run of each contender, in an order that the round's number rotates; after `bare` its bare products."""
    turn = number % len(names)
    runs: list[dict[str, Any]] = []
    for place, name in enumerate(names[turn:] + names[:turn]):
        load = os.getloadavg()[0]
        found: dict[str, Any] = {"contender": name, "round": number, "place": place, "load": round(load, 2)} | train(
            name, bench
        )
        runs.append(found)
        print(
            f"  round {number + 1}  {name:22}{tokens_per_second(found):8.0f} tokens/s  {step_seconds(found):7.3f} s a "
            f"step  {found['peak_bytes'] / 1e9:5.2f} GB  first step after {found['first_step_s']:5.1f} s",
            flush=True,
        )
        if name == bare:
            runs.append({"contender": "matmuls", "round": number} | matmuls(found, bench))
    return runs


def matmuls(of: dict[str, Any], bench: Bench) -> dict[str, Any]:
    """The bare products of a median step of a run, timed in a process of their own."""
    settings = yaml.safe_load(settings_file(of["contender"]).read_text())
    batches = settings["gradient_accumulation_steps"]
    tokens, trained = (round(statistics.median(step[column] for step in counted(of)) / batches) for column in (1, 2))
    out = bench.work / "matmuls.json"
    command = module(
        "benchmarks.runners.matmuls", bench.facts["model"], tokens, trained, settings["lora_rank"], 15, out
    )
    run(command, our_environment(bench.home), bench.work / "matmuls.log")
    seconds = json.loads(out.read_text())["seconds"] * batches
    print(
        f"           {'its bare products':22}{'':18}{seconds:8.3f} s ({tokens} tokens, {trained} trained)", flush=True
    )
    return {"seconds": round(seconds, 5), "tokens": tokens, "trained": trained, "micro_batches": batches}


def decode_round(number: int, bench: Bench) -> list[dict[str, Any]]:
    """The same greedy answers by both, each in a process of its own.

    Raises:
        RuntimeError: their texts differ.
    """
    prompts = bench.work / "prompts.json"
    rows = json.loads((bench.rows / "held_out.json").read_text())
    prompts.write_text(json.dumps([row["instruction"] for row in rows if not row["input"]][:PROMPTS]))
    runs: list[dict[str, Any]] = []
    texts = {}
    for who in sorted(GROUPS["decode"], reverse=number % 2 == 1):
        out = bench.work / "decode.json"
        command = module("benchmarks.runners.decode", who, bench.facts["model"], prompts, NEW_TOKENS, out)
        done = run(
            command, our_environment(bench.home) if who == "llf" else plain_environment(), bench.work / "decode.log"
        )
        found = json.loads(out.read_text())
        texts[who] = found["texts"]
        runs.append(
            {"contender": who, "round": number, "seconds": round(found["seconds"], 4), "wall_s": round(done.seconds, 2)}
        )
        print(f"  round {number + 1}  {who:22}{found['seconds']:8.2f} s", flush=True)
    if texts["llf"] != texts["transformers"]:
        raise RuntimeError(f"The greedy answers differ:\n{json.dumps(texts, indent=1)}")
    return runs


def held_out(group: str, runs: list[dict[str, Any]], bench: Bench) -> dict[str, float]:
    """The held-out loss of each contender's result, and of the untrained model."""
    outputs = {one["contender"]: one["output"] for one in runs if "output" in one}
    out = bench.work / f"{group}-held-out.json"
    named = ["untrained=", *(f"{name}={output}" for name, output in outputs.items())]
    command = module("benchmarks.runners.heldout", bench.facts["model"], bench.rows / "held_out.jsonl", out, *named)
    run(command, plain_environment(), bench.work / "held-out.log")
    losses: dict[str, float] = json.loads(out.read_text())
    return {name: round(loss, 5) for name, loss in losses.items()}


def about(bench: Bench, names: Sequence[str]) -> dict[str, Any]:
    """What is stored of a group beside its runs; `names` are those of its contenders that have settings."""
    return results.circumstances() | {
        "rows": {key: value for key, value in bench.facts.items() if key not in {"model", "adapter"}},
        "versions": {"llf": versions(), "llamafactory": versions(bench.peer_python)},
        "settings": {name: {"file": f"contenders/{name}.yaml", "sha256": settings_hash(name)} for name in names},
    }


def measure(group: str, asked: argparse.Namespace, bench: Bench) -> None:
    """Runs a group, and stores it after every round."""
    facts = bench.facts
    words = f"{facts['rows']} rows of {facts['data']}, {facts['tokens']:,} tokens, {facts['trained_tokens']:,} trained"
    print(f"{group}: {words if group in ROWS else ''}", flush=True)
    made = about(bench, GROUPS[group] if group in ROWS else ()) | {"runs": []}
    if asked.add:
        made = results.continued(asked.results, group, made)
    first = 1 + max((one["round"] for one in made["runs"]), default=-1)
    if group == "startup":
        cli = bench.peer_python.with_name("llamafactory-cli")
        for number, pair in enumerate(startup.measure(asked.rounds, cli), first):
            for who, seconds in zip(("llf", "llamafactory"), pair, strict=True):
                made["runs"].append(
                    {"contender": who, "round": number, "seconds": round(seconds, 3), "wall_s": round(seconds, 2)}
                )
        results.store(asked.results, group, made)
        return
    for number in range(first, first + asked.rounds):
        runs = decode_round(number, bench) if group == "decode" else trained_round(GROUPS[group], number, bench)
        if number == 0 and group in ROWS:
            made["held_out"] = held_out(group, runs, bench)
            print(f"  held-out losses {made['held_out']}", flush=True)
        for one in runs:
            one.pop("output", None)
        made["runs"] += runs
        results.store(asked.results, group, made)


def tell(stored: dict[str, Any]) -> None:
    """Prints the ratios and how far the held-out losses are apart."""
    for name, ratio in stored["ratios"].items():
        spread = stored["ranges"][name]
        print(f"{name:30}{ratio:7.2f}  ({spread['min']:.2f} to {spread['max']:.2f})")
    for name, group in stored["groups"].items():
        if "held_out" in group:
            print(f"{name}: held-out losses differ by at most {100 * disagreement(group['held_out']):.2f} %")


def main() -> None:
    """Run the measurements that the options select."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"groups, separated by commas: {', '.join(GROUPS)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--add", action="store_true", help="add the rounds to those that are stored")
    parser.add_argument("--rows", type=int, help="rows that each run trains on, once; else as many as 40 steps need")
    parser.add_argument("--quick", action="store_true", help="one round of a few steps, stored in build/")
    parser.add_argument("--search", choices=("llamafactory", "trl"), help="find the best batch of a contender")
    parser.add_argument("--sweep", action="store_true", help="cost against length, batch, rank and model size")
    parser.add_argument("--data", type=Path, help="Alpaca rows as JSON; else alpaca_en_demo or the shipped set")
    parser.add_argument("--results", type=Path, default=results.RESULTS)
    parser.add_argument("--peer-env", type=Path, default=FOLDER)
    asked = parser.parse_args()
    asked.only = asked.only.split(",") if asked.only else list(GROUPS)
    if unknown := set(asked.only) - set(GROUPS):
        parser.error(f"There is no group {', '.join(unknown)}. Choose from {', '.join(GROUPS)}.")
    if asked.quick:
        asked.rounds, asked.rows, asked.results = 1, 24, results.ROOT / "build" / "bench" / "sft.json"
    peer_environment(asked.peer_env)
    with tempfile.TemporaryDirectory(prefix="llf-bench-") as scratch:
        work = Path(scratch)
        if asked.search or asked.sweep:
            bench = prepare(asked, asked.rows or ROWS["packed"], work / "packed")
            if asked.search:
                search.find(asked.search, bench, asked.rounds)
            if asked.sweep:
                results.store(asked.results, "sweep", sweep.measure(bench))
            return
        minutes = estimate(asked) / 60
        print(
            f"{asked.rounds} rounds of {', '.join(asked.only)} beside {LLAMA_FACTORY}: about {minutes:.0f} minutes.",
            flush=True,
        )
        if os.getloadavg()[0] > 0.5:
            print(f"The machine is busy (load {os.getloadavg()[0]:.1f}): expect figures of no use.", flush=True)
        start = time.time()
        for group in asked.only:
            measure(group, asked, prepare(asked, asked.rows or ROWS.get(group, 24), work / group))
    print(f"Took {(time.time() - start) / 60:.0f} minutes. Ratios in {asked.results}:")
    tell(results.read(asked.results))


if __name__ == "__main__":
    main()
