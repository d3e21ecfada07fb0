"""Memory of PPO with one shared model against four models: SmolLM2-135M, the same batch, measured in one go.

    python -m benchmarks.ppo_memory

Each side trains two optimizer steps in a process of its own: LoRA, a reward model that is an adapter of the same base,
4 prompts a step. Counted are the bytes of every tensor that stays: the weights of all models in memory (each storage
once), the optimizer's states, and the gradients of what is trained. Activations come on top: the rest of the largest
resident set that the kernel saw of the process. Writes `results/ppo_memory.json`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.processes import module, our_environment
from benchmarks.tensors import stored
from llf_core.stages.base.stage import make_stage

MODEL = "smollm2-135m-instruct"
MODES = ("shared", "separate")
SETTINGS = {
    "model_name_or_path": MODEL,
    "stage": "ppo",
    "finetuning_type": "lora",
    "lora_rank": 8,
    "reward_model_type": "lora",
    "per_device_train_batch_size": 4,
    "ppo_epochs": 1,
    "max_steps": 2,
    "learning_rate": 1e-5,
    "max_new_tokens": 32,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "use_cpu": True,
    "save_strategy": "no",
    "seed": 42,
}


def reward_adapter(folder: Path) -> Path:
    """A reward model that is an adapter of the model, as stage rm leaves one; its weights do not matter here."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    from llf_core.config import RunConfig
    from llf_core.models import load_tokenizer, resolve_model

    config = RunConfig.load({"model_name_or_path": MODEL, "dataset": "unused"})
    source = resolve_model(MODEL, config)
    model = AutoModelForSequenceClassification.from_pretrained(source.folder, num_labels=1)
    settings = LoraConfig(task_type="SEQ_CLS", r=8, target_modules="all-linear", exclude_modules=["score"])
    get_peft_model(model, settings).save_pretrained(folder)
    load_tokenizer(source, config).save_pretrained(folder)
    return folder


def measure(mode: str, adapter: str, data: str) -> dict[str, object]:
    """Trains two steps in this process and counts."""
    import torch

    from llf_core.config import RunConfig
    from llf_core.models import plan_device
    from llf_core.runs import RunWriter, create_run
    from llf_core.training.load_context import load_context
    from llf_core.training.make_trainer import make_trainer
    from llf_core.training.metrics_callback import MetricsCallback

    config = RunConfig.load(SETTINGS | {"ppo_models": mode, "reward_model": adapter, "dataset": data})
    folder = create_run(config.yaml(defaults=True), f"ppo-{mode}")
    writer = RunWriter(folder, 1)
    plan = plan_device(config)
    before = _resident()
    context = load_context(folder, config, writer, plan)
    progress = MetricsCallback(folder, writer)
    stage: Any = make_stage(config, context)
    trainer = make_trainer(context, stage, progress)
    every = {
        id(one): one for model in stage.ppo_models.models.values() for one in (*model.parameters(), *model.buffers())
    }
    every |= {id(one): one for one in trainer.model.parameters()}
    trained = [one for one in every.values() if one.requires_grad]
    trainer.train()
    states = [
        value
        for state in trainer.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    weights, optimizer, gradients = stored(every.values()), stored(states), stored(trained)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {
        "models": {
            role: sum(one.numel() for name, one in model.named_parameters() if "llf_value" not in name)
            for role, model in stage.ppo_models.models.items()
        },
        "dtype": plan.dtype,
        "weights": weights,
        "optimizer": optimizer,
        "gradients": gradients,
        "weights_and_optimizer": weights + optimizer,
        "peak_resident": peak,
        "activations_and_rest": peak - weights - optimizer - gradients,
    }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs=3, metavar=("MODE", "ADAPTER", "DATA"), help="one side, in this process")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "ppo_memory.json")
    given = parser.parse_args()
    if given.measure:
        print("RESULT " + json.dumps(measure(*given.measure)))
        return

    from llf_core import __version__
    from llf_core.launch.environment import cpu_name, packages
    from llf_core.runs import home

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        adapter = reward_adapter(folder / "reward")
        data = folder / "prompts.json"
        data.write_text(json.dumps([{"instruction": f"Say something about the number {n}."} for n in range(16)]))
        own = folder / "home"
        own.mkdir()
        (own / "models").symlink_to(home() / "models")
        results = {}
        for mode in MODES:
            command = module("benchmarks.ppo_memory", "--measure", mode, adapter, data)
            done = subprocess.run(command, env=our_environment(own), capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stdout + done.stderr)
            line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
            results[mode] = json.loads(line.removeprefix("RESULT "))
    names = ("weights", "optimizer", "gradients", "weights_and_optimizer", "peak_resident", "activations_and_rest")
    shared, separate = (results[mode] for mode in MODES)
    ratios = {name: shared[name] / separate[name] for name in names}
    print(f"{'MB':<24}{'shared':>10}{'separate':>10}{'ratio':>8}")
    for name in names:
        print(f"{name:<24}{shared[name] / 1e6:>10.1f}{separate[name] / 1e6:>10.1f}{ratios[name]:>8.3f}")
    given.output.write_text(
        json.dumps(
            {
                "format": 1,
                "llf": __version__,
                "versions": packages(),
                "machine": cpu_name(),
                "settings": SETTINGS,
                "results": results,
                "ratios": ratios,
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
