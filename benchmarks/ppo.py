"""PPO with one shared model against PPO with four: the same task, the same seeds.

    python -m benchmarks.ppo [--seeds 3] [--phases 10]

SmolLM2-135M learns to be brief. It answers each prompt four times; of these answers a reward model (LoRA on the same
base, stage rm) learns that shorter is better. Then each seed is trained twice, with `ppo_models: shared` (LLaMA-
Factory's paper, arXiv 2403.13372, which has no such comparison) and with `separate` (arXiv 2203.02155), all else equal.
Written down are the mean reward and the KL of every phase, and in the end how often the reward model prefers a run's
answers to held-out prompts to those of the base. Writes `results/ppo.json` and `docs/images/bench-ppo.png`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.plots import ppo as draw
from benchmarks.processes import ROOT, our_environment

HERE = Path(__file__).parent
MODEL = "smollm2-135m-instruct"
MODES = ("shared", "separate")
WATCHED = ("reward", "kl", "response_length", "entropy")
LONGEST = 40
THINGS = (
    "rain", "bread", "the sea", "snow", "a horse", "iron", "milk", "a bridge", "salt", "the moon", "a clock", "wool",
    "a garden", "fire", "paper", "a whale", "gold", "tea", "a castle", "the wind", "sugar", "a bicycle", "honey",
    "a mountain", "glass", "a cat", "the desert", "rice", "a train", "silk", "a river", "cheese", "a library",
    "thunder", "an apple", "a violin", "wheat", "a lighthouse", "cotton", "an elephant", "the sun", "copper",
    "a market", "fog", "a sparrow", "coffee", "a window", "the forest", "butter", "a ship", "marble", "an island",
    "oil", "a school", "a candle", "sand", "a letter", "ice", "a farm", "leather", "a song", "clay", "the night",
    "a lake",
)  # fmt: skip
HELD_OUT = 16
COMMON = {
    "model_name_or_path": MODEL,
    "finetuning_type": "lora",
    "use_cpu": True,
    "logging_steps": 1,
    "save_strategy": "no",
    "learning_rate": 1e-4,
}
REWARD = COMMON | {
    "stage": "rm",
    "learning_rate": 2e-4,
    "per_device_train_batch_size": 8,
    "num_train_epochs": 4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "seed": 1,
}
POLICY = COMMON | {
    "stage": "ppo",
    "learning_rate": 2e-4,
    "reward_model_type": "lora",
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "ppo_epochs": 2,
    "ppo_kl_coef": 0.05,
    "lr_scheduler_type": "constant",
    "max_new_tokens": LONGEST,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
}


SAMPLES = 4
DRAW = """
import importlib, json, sys
from llf_core.config import RunConfig
from llf_core.models import load_model, load_tokenizer, plan_device, resolve_model
from llf_core.generation.sampling import Sampling
generating = importlib.import_module("llf_core.generation.generate")
name, prompts, longest, seed = json.loads(sys.argv[1])
config = RunConfig.load({"model_name_or_path": name, "dataset": "unused", "finetuning_type": "lora"})
source = resolve_model(name, config)
tokenizer, model = load_tokenizer(source, config), load_model(source, config, plan_device(config))
read = generating.encode(tokenizer, prompts)
ids = [row[mask.bool()].tolist() for row, mask in zip(read["input_ids"], read["attention_mask"], strict=True)]
found = generating.continuations(
    model, tokenizer, ids, sampling=Sampling(do_sample=True, seed=seed), max_new_tokens=longest, batch_size=16
)
ends = set(generating.end_tokens(model, tokenizer))
print("RESULT " + json.dumps([
    (len(one), tokenizer.decode(one, skip_special_tokens=True).strip() if one[-1] in ends else "") for one in found
]))
"""
"""Draws answers: how many tokens, and the text of those that end."""


def question(thing: str) -> str:
    return f"Say one short sentence about {thing}."


def asked(code: str, told: object, home: Path) -> Any:
    """What some code prints, in a process of its own with a trainer's environment."""
    command = [sys.executable, "-P", "-c", code, json.dumps(told)]
    done = subprocess.run(command, env=our_environment(home), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


def write_data(folder: Path, home: Path) -> tuple[Path, Path, list[str]]:
    """Pairs of a shorter and a longer answer of the model, prompts, and the prompts that are held out."""
    prompts = [question(thing) for thing in THINGS[:-HELD_OUT]]
    drawn = asked(DRAW, [MODEL, prompts * SAMPLES, LONGEST, 7], home)
    pairs = []
    for number, prompt in enumerate(prompts):
        own = sorted({tuple(one) for one in drawn[number :: len(prompts)] if one[1]})
        for shorter, longer in zip(own, reversed(own), strict=True):
            if shorter[0] < longer[0]:
                pairs.append({"instruction": prompt, "chosen": shorter[1], "rejected": longer[1]})
    files = folder / "pairs.json", folder / "prompts.json"
    files[0].write_text(json.dumps(pairs))
    files[1].write_text(json.dumps([{"instruction": prompt} for prompt in prompts]))
    return *files, [question(thing) for thing in THINGS[-HELD_OUT:]]


def train(settings: dict[str, Any], home: Path, name: str) -> tuple[Any, float]:
    """One run in a trainer process of its own; returns its folder and the seconds that it took."""
    from llf_core.config import RunConfig
    from llf_core.launch.local_process import trainer_command
    from llf_core.runs import create_run

    folder = create_run(RunConfig.load(settings).yaml(defaults=True), name, home=home)
    began = time.perf_counter()
    with folder.log.open("wb") as log:
        code = subprocess.run(
            trainer_command(folder), env=our_environment(home), stdout=log, stderr=log, cwd=ROOT, check=False
        ).returncode
    if code:
        sys.exit(f"{name} failed.\n{folder.log.read_text()}")
    return folder, time.perf_counter() - began


def curves(folder: Any) -> dict[str, list[float]]:
    """What a run measured in each phase."""
    from llf_core.runs import RunReader

    columns = RunReader(folder).metrics()
    return {name: [round(float(value), 4) for value in columns.values(name)] for name in WATCHED}


CONTEST = """
import json, sys
from pathlib import Path
from llf_core.evaluation.win_rate import win_rate
from llf_core.runs import RunFolder
run, reward, prompts, longest = json.loads(sys.argv[1])
found = win_rate(RunFolder(Path(run)), reward, prompts, max_new_tokens=longest)
words = lambda of: sum(len(getattr(one, of).split()) for one in found.contests) / len(found.contests)
print("RESULT " + json.dumps({
    "win_rate": found.rate, "base_reward": found.base, "tuned_reward": found.tuned, "base_words": words("base"),
    "tuned_words": words("tuned"), "answer": found.contests[0].tuned,
}))
"""
"""Has the answers of a run and of its base compared."""


def band(values: list[float]) -> dict[str, float]:
    """Mean, smallest and largest."""
    return {"mean": statistics.fmean(values), "low": min(values), "high": max(values)}


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """The bands of each side over its seeds: of the last quarter of the phases, and of the held-out prompts."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for mode in MODES:
        own = [run for run in runs if run["mode"] == mode]
        last = max(1, len(own[0]["curves"]["reward"]) // 4)
        found[mode] = {
            **{name: band([statistics.fmean(run["curves"][name][-last:]) for run in own]) for name in WATCHED},
            "first_reward": band([run["curves"]["reward"][0] for run in own]),
            "win_rate": band([run["win_rate"] for run in own]),
            "held_out_reward": band([run["tuned_reward"] for run in own]),
            "held_out_words": band([run["tuned_words"] for run in own]),
            "seconds": band([run["seconds"] for run in own]),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--phases", type=int, default=10)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "ppo.json")
    parser.add_argument("--image", type=Path, default=ROOT / "docs" / "images" / "bench-ppo.png")
    given = parser.parse_args()

    from llf_core import __version__
    from llf_core.launch.environment import cpu_name, packages
    from llf_core.runs import RunReader, home

    began = time.perf_counter()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        own = Path(temporary) / "home"
        own.mkdir()
        (own / "models").symlink_to(home() / "models")
        pairs, prompts, held_out = write_data(Path(temporary), own)
        reward, seconds = train(REWARD | {"dataset": str(pairs)}, own, "reward")
        accuracy = float(RunReader(reward).metrics().values("rewards/accuracies")[-4:].mean())
        print(f"reward model: {seconds:.0f} s, accuracy of its last steps {accuracy:.2f}", flush=True)
        policy = POLICY | {"dataset": str(prompts), "reward_model": str(reward.path)}
        policy |= {"max_steps": given.phases * POLICY["ppo_epochs"]}
        for seed in range(given.seeds):
            for mode in MODES:
                folder, seconds = train(policy | {"ppo_models": mode, "seed": seed}, own, f"{mode}-{seed}")
                run: dict[str, Any] = {
                    "mode": mode,
                    "seed": seed,
                    "seconds": round(seconds, 1),
                    "curves": curves(folder),
                }
                run |= asked(CONTEST, [str(folder.path), str(reward.path), held_out, LONGEST], own)
                runs.append(run)
                line = "  ".join(f"{name} {run['curves'][name][-1]:.2f}" for name in WATCHED)
                print(f"{mode:<9} seed {seed}: {seconds:4.0f} s  {line}  win rate {run['win_rate']:.2f}", flush=True)
    told = summary(runs)
    print(f"{'mean (smallest to largest)':<28}" + "".join(f"{mode:>28}" for mode in MODES))
    for name in told["shared"]:
        cells = [f"{one['mean']:.2f} ({one['low']:.2f} to {one['high']:.2f})" for one in (told[m][name] for m in MODES)]
        print(f"{name:<28}" + "".join(f"{cell:>28}" for cell in cells))
    result = {
        "format": 1,
        "llf": __version__,
        "versions": packages(),
        "machine": cpu_name(),
        "settings": POLICY | {"phases": given.phases},
        "reward_model": REWARD | {"accuracy": round(accuracy, 3)},
        "seconds": round(time.perf_counter() - began),
        "summary": told,
        "runs": runs,
    }
    given.output.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, given.image)


if __name__ == "__main__":
    main()
