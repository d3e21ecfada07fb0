"""Tasks of lm-eval through LLF beside `lm_eval --model hf`: the same tasks, model and numbers, in turns.

    python -m benchmarks.evaluate_tasks [--rounds 3] [--limit 16] [--batch-sizes 1 4 16] [--threads N]

Each measurement is a process of its own. What is told is its processor time for the evaluation alone, without imports
and loading; lm-eval's at its best batch size. Wall time is stored beside it. The shipped tasks and a task of five
solved examples run in float32 on a CPU. It ends with an error if two numbers differ. Writes
`results/evaluate_tasks.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.processes import ROOT

RESULTS = Path(__file__).parent / "results" / "evaluate_tasks.json"
TASKS = (("llf_completion", 0), ("llf_knowledge", 0), ("llf_knowledge", 5), ("llf_arithmetic", 5))
"""Name of a task, and number of solved examples."""
SEED = 1234


def main() -> None:
    """Measures, prints and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--arm", choices=("llf", "hf"))
    parser.add_argument("--model", type=Path)
    asked = parser.parse_args()
    if asked.arm:
        print(json.dumps(measure(asked.arm, asked.model, asked.limit, asked.batch_sizes)))
        return
    with tempfile.TemporaryDirectory(prefix="llf-tasks-") as scratch:
        folder = write_model(Path(scratch) / "model")
        rounds = []
        for number in range(asked.rounds):
            arms = ("llf", "hf") if number % 2 == 0 else ("hf", "llf")
            rounds.append({arm: in_process(arm, folder, asked) for arm in arms})
    result = summary(rounds) | {
        "limit": asked.limit,
        "threads": asked.threads,
        "batch_sizes": asked.batch_sizes,
        **results.circumstances(),
        "rounds": rounds,
    }
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    asked.results.write_text(results.text_of(result))
    for row in result["tasks"]:
        name = f"{row['task']}, {row['n_shot']} shots"
        print(f"{name:26} {row['llf_s']:8.2f} s {row['hf_s']:8.2f} s (batch {row['batch_size']:2})  {row['ratio']:.2f}")
    print(f"{'all':26} {'':33} {result['ratio']:.2f} ({result['lowest']:.2f} to {result['highest']:.2f})")


def write_model(folder: Path) -> Path:
    """The embedded model as a folder in float32, which both load."""
    from llf_core.chat.target import find_target, load_base, loading_config

    config = loading_config(find_target("smollm2-135m-instruct").config)
    base = load_base(config, None, lambda _: None)
    base.model.float().save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


def in_process(arm: str, folder: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """What a process of its own measured."""
    sizes = [str(size) for size in asked.batch_sizes]
    command = [
        sys.executable, "-m", "benchmarks.evaluate_tasks", "--arm", arm, "--model", str(folder),
        "--limit", str(asked.limit), "--batch-sizes", *sizes,
    ]  # fmt: skip
    threads = str(asked.threads)
    env = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TQDM_DISABLE": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT)
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(arm: str, folder: Path, limit: int, batch_sizes: list[int]) -> list[dict[str, Any]]:
    """Each task with one arm: seconds, and the numbers."""
    import torch
    from lm_eval.evaluator import evaluate
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llf_core.evaluation.harness.load_tasks import load_tasks, set_seed

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if arm == "llf":
        from llf_core.acceleration.patching.causal_head import install_head
        from llf_core.chat.engine import Engine
        from llf_core.evaluation.harness.live_model import LiveModel

        engine = Engine(model, tokenizer)
        install_head(model)
        models: dict[int, Any] = {0: LiveModel(engine, None, tokenizer, lambda *_: None)}
    else:
        from lm_eval.models.huggingface import HFLM

        models = {
            size: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, device="cpu") for size in batch_sizes
        }
    found = []
    for name, n_shot in TASKS:
        (task,) = load_tasks([name], n_shot=n_shot, seed=SEED, limit=limit, hub=False)
        for size, one in models.items():
            set_seed(task, SEED)
            began, used = time.perf_counter(), time.process_time()
            got = evaluate(
                lm=one, task_dict=task.loaded, limit=limit, bootstrap_iters=0,
                apply_chat_template=True, fewshot_as_multiturn=True,
            )  # fmt: skip
            seconds, wall = time.process_time() - used, time.perf_counter() - began
            replies = [sample["resps"] for sample in got["samples"][name]]
            values = {key: value for key, value in got["results"][name].items() if "," in key and "_stderr" not in key}
            found.append({
                "task": name, "n_shot": n_shot, "batch_size": size,
                "cpu_s": round(seconds, 3), "wall_s": round(wall, 3),
                "values": values, "replies": replies,
            })  # fmt: skip
    return found


def summary(rounds: list[dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """The ratio of each task and of all, each made within a round; lm-eval's at its best batch size."""
    rows, ratios = [], []
    for one in rounds:
        sums = [0.0, 0.0]
        for ours in one["llf"]:
            same = [row for row in one["hf"] if (row["task"], row["n_shot"]) == (ours["task"], ours["n_shot"])]
            theirs = min(same, key=lambda row: row["cpu_s"])
            for row in same:
                check_equal(ours, row)
            sums[0] += ours["cpu_s"]
            sums[1] += theirs["cpu_s"]
            rows.append((ours, theirs))
        ratios.append(sums[0] / sums[1])
    for one in rounds:
        for row in (*one["llf"], *one["hf"]):
            row.pop("replies")
    tasks = []
    for name, n_shot in TASKS:
        own = [(ours, theirs) for ours, theirs in rows if (ours["task"], ours["n_shot"]) == (name, n_shot)]
        tasks.append({
            "task": name, "n_shot": n_shot, "batch_size": own[0][1]["batch_size"],
            "llf_s": statistics.median(ours["cpu_s"] for ours, _ in own),
            "hf_s": statistics.median(theirs["cpu_s"] for _, theirs in own),
            "ratio": statistics.median(ours["cpu_s"] / theirs["cpu_s"] for ours, theirs in own),
        })  # fmt: skip
    return {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios), "tasks": tasks}


def check_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """End if the numbers or the replies of the two differ."""
    if ours["values"] != theirs["values"]:
        raise SystemExit(f"{ours['task']}: {ours['values']} through LLF, {theirs['values']} by lm-eval")
    for number, (one, other) in enumerate(zip(ours["replies"], theirs["replies"], strict=True)):
        for (mine,), (given,) in zip(one, other, strict=True):
            same = mine == given if isinstance(mine, str) else abs(mine[0] - given[0]) < 1e-3 and mine[1] == given[1]
            if not same:
                raise SystemExit(f"{ours['task']}, example {number}: {mine} through LLF, {given} by lm-eval")


if __name__ == "__main__":
    main()
