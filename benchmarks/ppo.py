"""PPO with one shared model against PPO with four: the same task, the same seeds.

    python -m benchmarks.ppo [--seeds 3] [--phases 10]

SmolLM2-135M learns to answer in one short sentence. A reward model (LoRA on the same base, stage rm) learns from pairs
which answers are short; then each seed is trained twice, with `ppo_models: shared` (LLaMA-Factory's paper, arXiv
2403.13372, which has no such comparison) and with `separate` (arXiv 2203.02155), all else equal. Written down are the
mean reward and the KL of every phase, and in the end how often the reward model prefers a run's answers to held-out
prompts to those of the base. Writes `results/ppo.json` and `docs/images/bench-ppo.png`.
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
LONGEST = 32
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
SHORT = ("{} is well known.", "That is {}.", "{} can be seen in many places.", "People like {}.")
LONG = (
    "{} is something that people have known for a very long time: it has a history, and many uses, and many names.",
    "There is a great deal to tell about {}, and it is hard to know where to begin: every country has its stories.",
)
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
    "per_device_train_batch_size": 8,
    "num_train_epochs": 2,
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
    "ppo_kl_coef": 0.1,
    "lr_scheduler_type": "constant",
    "max_new_tokens": LONGEST,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
}


def question(thing: str) -> str:
    return f"Tell me about {thing}."


def write_data(folder: Path) -> tuple[Path, Path, list[str]]:
    """Pairs, prompts, and the prompts that are held out."""
    known = THINGS[:-HELD_OUT]
    pairs = []
    for number, thing in enumerate(known):
        for turn in range(2):
            short, long = SHORT[(number + turn) % len(SHORT)], LONG[(number + turn) % len(LONG)]
            chosen, rejected = (text.format(thing)[0].upper() + text.format(thing)[1:] for text in (short, long))
            pairs.append({"instruction": question(thing), "chosen": chosen, "rejected": rejected})
    files = folder / "pairs.json", folder / "prompts.json"
    files[0].write_text(json.dumps(pairs))
    files[1].write_text(json.dumps([{"instruction": question(thing)} for thing in known]))
    return *files, [question(thing) for thing in THINGS[-HELD_OUT:]]


def train(settings: dict[str, Any], home: Path, name: str) -> tuple[Any, float]:
    """One run in a trainer process of its own; returns its folder and the seconds that it took."""
    from llf_core.config import RunConfig
    from llf_core.launch.local import trainer_command
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


def contest(folder: Any, reward: Any, prompts: list[str], home: Path) -> dict[str, Any]:
    """How often a run's answers beat the base's, asked in a process of its own."""
    code = (
        "import json, sys\n"
        "from llf_core.evaluation.win_rate import win_rate\n"
        "from llf_core.runs import RunFolder\n"
        "from pathlib import Path\n"
        "run, reward, prompts, longest = json.loads(sys.argv[1])\n"
        "found = win_rate(RunFolder(Path(run)), reward, prompts, max_new_tokens=longest)\n"
        "print('RESULT ' + json.dumps([found.rate, found.base, found.tuned, found.contests[0].tuned]))\n"
    )
    told = json.dumps([str(folder.path), str(reward.path), prompts, LONGEST])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, told], env=our_environment(home), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    rate, base, tuned, answer = json.loads(line.removeprefix("RESULT "))
    return {"win_rate": rate, "base_reward": base, "tuned_reward": tuned, "answer": answer}


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
        pairs, prompts, held_out = write_data(Path(temporary))
        reward, seconds = train(REWARD | {"dataset": str(pairs)}, own, "reward")
        accuracy = float(RunReader(reward).metrics().values("rewards/accuracies")[-4:].mean())
        print(f"reward model: {seconds:.0f} s, accuracy of its last steps {accuracy:.2f}", flush=True)
        policy = POLICY | {"dataset": str(prompts), "reward_model": str(reward.path)}
        policy |= {"max_steps": given.phases * POLICY["ppo_epochs"]}
        for seed in range(given.seeds):
            for mode in MODES:
                folder, seconds = train(policy | {"ppo_models": mode, "seed": seed}, own, f"{mode}-{seed}")
                run = {"mode": mode, "seed": seed, "seconds": round(seconds, 1), "curves": curves(folder)}
                run |= contest(folder, reward, held_out, own)
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
