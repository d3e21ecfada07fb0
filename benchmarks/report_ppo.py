"""The section of `docs/benchmarks.md` about PPO."""

from __future__ import annotations

from typing import Any

NAMES = {
    "first_reward": "reward of the first phase",
    "reward": "reward, last quarter of the phases",
    "kl": "KL of a completion, nats",
    "response_length": "tokens of a completion",
    "entropy": "entropy of a token, nats",
    "held_out_reward": "reward on held-out prompts",
    "win_rate": "win rate against the base on held-out prompts",
}


def text(ablation: dict[str, Any] | None, memory: dict[str, Any] | None) -> str:
    """What one shared model costs beside four, and what it learns."""
    parts = ["## PPO: one shared model compared with four"]
    if memory is not None:
        parts += [memory_table(memory), MEMORY]
    if ablation is not None:
        parts += [
            ablation_table(ablation),
            learned(ablation),
            "![Reward, KL and win rate of both](images/bench-ppo.png)",
        ]
    return "\n\n".join(parts)


MEMORY = """One run of each kind, in turns (`python -m benchmarks.ppo_memory`). The reward model is an adapter of the
same base. Bytes of weights and optimizer states are counted tensor by tensor. The rest is the peak of the process
minus these and the gradients."""


def memory_table(memory: dict[str, Any]) -> str:
    """Gigabytes of both, and their ratio."""
    rows = {
        "weights and optimizer": "weights_and_optimizer",
        "peak of the process": "peak_resident",
        "activations and the rest": "activations_and_rest",
    }
    shared, separate = (memory["results"][mode] for mode in ("shared", "separate"))
    lines = ["| GB | shared | separate | ratio |", "|---|---|---|---|"]
    lines += [
        f"| {what} | {shared[key] / 1e9:.3f} | {separate[key] / 1e9:.3f} | **{memory['ratios'][key]:.2f}** |"
        for what, key in rows.items()
    ]
    return "\n".join(lines)


def ablation_table(ablation: dict[str, Any]) -> str:
    """Means over the seeds, with the smallest and the largest."""
    modes = list(ablation["summary"])
    lines = [f"| mean of {seeds(ablation)} seeds (smallest to largest) | {' | '.join(modes)} |", "|---|---|---|"]
    for key, what in NAMES.items():
        cells = [ablation["summary"][mode][key] for mode in modes]
        said = [f"{one['mean']:.2f} ({one['low']:.2f} to {one['high']:.2f})" for one in cells]
        lines.append(f"| {what} | {' | '.join(said)} |")
    return "\n".join(lines)


def seeds(ablation: dict[str, Any]) -> int:
    """How many runs of each kind there are."""
    return len({run["seed"] for run in ablation["runs"]})


def learned(ablation: dict[str, Any]) -> str:
    """What was measured, and what may be read from it."""
    settings = ablation["settings"]
    answers = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    model = settings["model_name_or_path"]
    return f"""`python -m benchmarks.ppo`: `{model}` learns to be brief from a reward model (LoRA, stage `rm`, final
accuracy {100 * ablation["reward_model"]["accuracy"]:.0f} %) that was trained to prefer the shorter one of two
completions of the model. {settings["phases"]} phases of {answers} completions with {settings["ppo_epochs"]} steps
each. Only `ppo_models` differs; the seeds are the same, so the first completions are the same.
{seeds(ablation)} seeds and {answers} completions in each phase show a tendency, not more."""
