"""Proximal policy optimization (arXiv 1707.06347) on the scores of the model's own completions."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from llf_core.config.declaration import StageDeclaration
from llf_core.config.option import Names, Section, option
from llf_core.config.rule import Fix, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.config.values import ConfigValues

AUTHORIZATION = "LLF_REWARD_AUTHORIZATION"
"""Environment variable with the header `Authorization` for a reward endpoint."""
GENERATION_KEYS = (
    "do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens", "max_length", "num_beams",
)  # fmt: skip
MODELS = ("shared", "separate")
REWARDS = ("lora", "full", "api", "function")


class PPOOptions(Section):
    """Options of PPO."""

    ppo_models: Literal["shared", "separate"] = option(
        "shared",
        label="Models",
        help=(
            "`shared`: one model is policy, reference, value and reward model by adapters and heads. `separate`: one "
            "model each."
        ),
        choices=MODELS,
        level="basic",
    )
    reward_model: str | None = option(
        None,
        unset="a run, a model or an address",
        label="Reward model",
        help=(
            "Model that scores the answers: a run of stage rm, a model or adapter, or for `api` an address (http or "
            "https)."
        ),
        level="basic",
        source="LLaMA-Factory",
        path="model",
    )
    reward_model_type: Literal["lora", "full", "api", "function"] = option(
        "lora",
        label="Reward model type",
        help="`lora` (an adapter of the policy), `full` (a whole model), `api` (an HTTP endpoint) or reward functions.",
        choices=REWARDS,
        level="basic",
        source="LLaMA-Factory",
    )
    reward_model_adapters: Names | None = option(
        None,
        unset="none",
        label="Reward model adapters",
        help="For `full`: adapters of the reward model. The last one has the reward head.",
        source="LLaMA-Factory",
        path="adapters",
    )
    reward_model_quantization_bit: Literal[4, 8] | None = option(
        None,
        unset="none",
        label="Reward model bits",
        help="For `full`: loads the reward model quantized to 4 or 8 bits.",
        choices=(4, 8),
        source="LLaMA-Factory",
    )
    ppo_buffer_size: int = option(
        1,
        label="Rollout buffer",
        help="Batches of prompts per rollout, each as large as an optimizer step.",
        minimum=1,
        maximum=100_000,
        source="LLaMA-Factory",
    )
    ppo_epochs: int = option(
        4,
        label="PPO epochs",
        help="Passes over each rollout.",
        minimum=1,
        maximum=1000,
        level="basic",
        source="LLaMA-Factory",
    )
    ppo_score_norm: bool = option(
        False,
        label="Normalize scores",
        help="Normalizes scores by the running mean and standard deviation of all scores.",
        source="LLaMA-Factory",
    )
    ppo_whiten_rewards: bool = option(
        False,
        label="Whiten rewards",
        help="Whitens the token rewards to variance 1.",
        source="LLaMA-Factory",
    )
    ppo_target: float | None = option(
        6.0,
        unset="fixed",
        label="Target KL",
        help="Adapts the KL coefficient towards this divergence per answer. Null keeps it fixed.",
        unit="nats",
        above=0,
        source="LLaMA-Factory",
    )
    ppo_kl_coef: float = option(
        0.2,
        label="KL coefficient",
        help="Initial weight of the KL penalty.",
        minimum=0,
        level="basic",
    )
    ppo_cliprange: float = option(
        0.2,
        label="Clip range",
        help="Clip range ε of the probability ratio (PPO, eq. 7). Typical: 0.2.",
        above=0,
        below=1,
    )
    ppo_cliprange_value: float = option(
        0.2,
        label="Value clip range",
        help="Clip range of the value function's change. Typical: 0.2.",
        above=0,
    )
    ppo_vf_coef: float = option(0.1, label="Value loss weight", help="Weight of the value loss.", minimum=0)
    ppo_gamma: float = option(
        1.0,
        label="Discount",
        help="Discount factor γ of rewards, per token.",
        minimum=0,
        maximum=1,
    )
    ppo_lam: float = option(
        0.95,
        label="GAE lambda",
        help="GAE λ: 0 relies on the value function (less variance), 1 on the rewards (less bias).",
        minimum=0,
        maximum=1,
    )


def longest_answer(config: ConfigValues, prompt: int = 0) -> int:
    """Maximum tokens of a completion; `max_new_tokens` takes precedence over `max_length`, as in transformers."""
    return config.generation.max_new_tokens or max(1, config.generation.max_length - prompt)


def epoch_steps(config: ConfigValues, rows: float) -> int:
    """Optimizer steps in which every prompt gets a completion: whole phases, see `stages.ppo.prompts.Plan`."""
    training, options = config.training, config.options(PPOOptions)
    step = training.per_device_train_batch_size * training.gradient_accumulation_steps * config.launch.ranks
    return math.ceil(rows / (step * options.ppo_buffer_size)) * options.ppo_buffer_size * options.ppo_epochs


def _for_ppo(when: Callable[[ConfigValues], bool]) -> Callable[[ConfigValues], bool]:
    return lambda config: config.get("stage") == "ppo" and when(config)


def is_address(text: str) -> bool:
    """Whether a text is an HTTP URL with a host."""
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that is not closed, a port that is no number
        return False


def _address(config: ConfigValues) -> str:
    return str(config.get("reward_model") or "") if config.get("reward_model_type") == "api" else ""


def _tells_secrets(address: str) -> bool:
    return is_address(address) and "@" in urlsplit(address).netloc


def _cuts(config: ConfigValues) -> list[str]:
    """Settings that keep completions from being sampled from the whole distribution of the policy."""
    found = []
    if config.generation.top_k:
        found.append(f"top_k {config.generation.top_k}")
    if config.generation.top_p < 1:
        found.append(f"top_p {config.generation.top_p:g}")
    if config.generation.repetition_penalty != 1:
        found.append(f"repetition_penalty {config.generation.repetition_penalty:g}")
    return found


DRAW_ALL = Fix("Sample from all tokens", {"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "temperature": 1.0})

RULES = (
    Rule(
        ("reward_model", "reward_model_type", "stage"),
        _for_ppo(lambda c: c.get("reward_model_type") != "function" and not c.get("reward_model")),
        "PPO needs a reward. Expected a reward model, an endpoint, or reward functions.",
        (Fix("Use reward functions", {"reward_model_type": "function"}),),
    ),
    Rule(
        ("reward_model", "reward_model_type", "stage"),
        _for_ppo(lambda c: c.get("reward_model_type") == "function" and bool(c.get("reward_model"))),
        "Completions are scored by reward functions, so the reward model has no effect. Expected one of the two.",
        (Fix("Remove the reward model", {"reward_model": None}),),
    ),
    Rule(
        ("reward_model", "reward_model_type", "stage"),
        _for_ppo(lambda c: bool(_address(c)) and not is_address(_address(c))),
        lambda c: f"{c.get('reward_model')} is not a URL. Expected one such as http://localhost:8000/score.",
    ),
    Rule(
        ("reward_model", "reward_model_type", "stage"),
        _for_ppo(lambda c: _tells_secrets(_address(c))),
        "The URL of the reward model contains a user name or password, and the config is stored with the run and in "
        f"its model card. Expected the URL without them. Set {AUTHORIZATION} in the environment to the value of the "
        "Authorization header, such as `Bearer …`.",
    ),
    Rule(
        ("reward_model_type", "finetuning_type", "stage"),
        _for_ppo(lambda c: c.get("reward_model_type") == "lora" and c.get("finetuning_type") != "lora"),
        lambda c: (
            "A reward model of type `lora` is a LoRA on the policy's base model, beside the policy's own, and "
            f"finetuning_type is {c.get('finetuning_type')}. Expected lora."
        ),
        (
            Fix("Train with LoRA", {"finetuning_type": "lora"}),
            Fix("Use a full reward model", {"reward_model_type": "full"}),
        ),
    ),
    Rule(
        ("reward_model_adapters", "reward_model_type", "stage"),
        _for_ppo(lambda c: bool(c.get("reward_model_adapters")) and c.get("reward_model_type") != "full"),
        "`reward_model_adapters` applies to a full reward model only. Expected reward_model_type full.",
        (
            Fix("Use a full reward model", {"reward_model_type": "full"}),
            Fix("Remove the adapters", {"reward_model_adapters": None}),
        ),
    ),
    Rule(
        ("reward_model_quantization_bit", "reward_model_type", "stage"),
        _for_ppo(lambda c: bool(c.get("reward_model_quantization_bit")) and c.get("reward_model_type") != "full"),
        "`reward_model_quantization_bit` applies to a full reward model only. Expected reward_model_type full.",
        (
            Fix("Use a full reward model", {"reward_model_type": "full"}),
            Fix("Remove it", {"reward_model_quantization_bit": None}),
        ),
    ),
    Rule(
        ("train_sampling_strategy", "stage"),
        _for_ppo(lambda c: c.training.train_sampling_strategy != "random"),
        "PPO samples its prompts in random order. Expected train_sampling_strategy random.",
        (Fix("Set to random", {"train_sampling_strategy": "random"}),),
    ),
    Rule(
        ("num_beams", "stage"),
        _for_ppo(lambda c: c.generation.num_beams > 1),
        "PPO samples completions, which beam search does not. Expected num_beams 1.",
        (Fix("Set to 1", {"num_beams": 1}),),
    ),
    Rule(
        ("do_sample", "stage"),
        _for_ppo(lambda c: not c.generation.do_sample),
        "Without sampling, a prompt always has the same completion, so PPO cannot explore. Expected do_sample true.",
        (Fix("Sample completions", {"do_sample": True}),),
        severity="warning",
    ),
    Rule(
        ("top_p", "top_k", "repetition_penalty", "stage"),
        _for_ppo(lambda c: c.generation.do_sample and bool(_cuts(c))),
        lambda c: (
            f"Completions are sampled with {' and '.join(_cuts(c))}, but PPO computes with the whole distribution: "
            "tokens that are never sampled are never learned, and the KL is only approximate."
        ),
        (DRAW_ALL,),
        severity="warning",
    ),
    Rule(
        ("max_new_tokens", "max_length", "cutoff_len", "stage"),
        _for_ppo(lambda c: not c.generation.max_new_tokens and c.generation.max_length <= c.data.cutoff_len),
        lambda c: (
            f"Prompt and completion together have at most {c.generation.max_length:,} tokens (max_length), and a "
            f"prompt alone up to {c.data.cutoff_len:,} (cutoff_len): a long prompt leaves one token for its completion."
        ),
        (Fix("Limit the completion only", {"max_new_tokens": 256}),),
        severity="warning",
    ),
    Rule(
        ("max_length", "max_new_tokens", "stage"),
        _for_ppo(
            lambda c: (
                c.generation.max_length != type(c.generation).model_fields["max_length"].default
                and c.generation.max_new_tokens > 0
            )
        ),
        lambda c: (
            f"`max_length` ({c.generation.max_length:,}) has no effect: completions are cut after max_new_tokens, "
            f"{c.generation.max_new_tokens:,}. Expected one of them: max_new_tokens 0 uses max_length."
        ),
        lambda c: (
            Fix("Limit prompt and completion together", {"max_new_tokens": 0}),
            Fix("Limit the completion only", {"max_length": None, "max_new_tokens": c.generation.max_length}),
        ),
        severity="warning",
    ),
    Rule(
        ("reward_functions", "max_new_tokens", "stage"),
        _for_ppo(lambda c: not c.generation.max_new_tokens and "length" in (c.stage.reward_functions or ())),
        "The reward `length` depends on the maximum length of a completion, which differs between prompts if "
        "max_new_tokens is 0. Expected max_new_tokens above 0.",
        (Fix("Limit the completion only", {"max_new_tokens": 256}),),
    ),
    Rule(
        ("reward_functions", "reward_model_type", "stage"),
        _for_ppo(lambda c: bool(c.stage.reward_functions) and c.get("reward_model_type") != "function"),
        lambda c: (
            f"Completions are scored by {c.get('reward_model') or 'a reward model'} (reward_model_type "
            f"{c.get('reward_model_type')}), and reward functions are given too. Expected one of the two."
        ),
        (
            Fix("Use reward functions", {"reward_model_type": "function", "reward_model": None}),
            Fix("Remove the reward functions", {"reward_functions": None}),
        ),
    ),
    Rule(
        ("neftune_noise_alpha", "stage"),
        _for_ppo(lambda c: bool(c.get("neftune_noise_alpha"))),
        "NEFTune noise would make the policy differ from the one that sampled the completions. Expected no noise.",
        (Fix("Remove it", {"neftune_noise_alpha": None}),),
    ),
)


def _second_model(config: ConfigValues) -> str | None:
    loaded = config.get("reward_model") and config.get("reward_model_type") in {"lora", "full"}
    return "reward_model" if loaded else None


PPO = StageDeclaration(
    name="ppo",
    label="ppo (proximal policy optimization)",
    implementation="llf_core.stages.ppo.stage:PPO",
    options=PPOOptions,
    rules=RULES,
    trains_value_function=True,
    data_kind="prompts",
    loss_kind="reward",
    evaluation_metrics=MappingProxyType({"reward": True}),
    has_reference=True,
    holds_reference=lambda _: True,
    separates_models=lambda config: bool(config.get("ppo_models") == "separate"),
    uses_rewards=True,
    scored_by_functions=lambda config: bool(config.get("reward_model_type") == "function"),
    generation_keys=GENERATION_KEYS,
    second_model=_second_model,
    second_is_adapter=lambda config: bool(config.get("reward_model_type") == "lora"),
    completion_limit="max_new_tokens",
    completion_tokens=longest_answer,
    uses_of_completion=lambda config: config.options(PPOOptions).ppo_epochs,
    epoch_steps=epoch_steps,
    other_names=MappingProxyType(
        {
            "max_completion_length": "max_new_tokens",
            "pref_beta": "ppo_kl_coef",
            "beta": "ppo_kl_coef",
            "epsilon": "ppo_cliprange",
            "num_iterations": "ppo_epochs",
            "kd_temperature": "temperature",
            "teacher_model": "ref_model",
        }
    ),
)
