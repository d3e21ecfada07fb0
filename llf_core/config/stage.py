from __future__ import annotations

from typing import Literal

from llf_core.config.option import Names, Section, option


class StageSection(Section):
    """The training objective."""

    stage: str = option(
        "sft",
        label="Stage",
        help=(
            "Training objective: supervised fine-tuning (`sft`), preferences (`dpo`, `kto`), rewards (`rm`, `ppo`, "
            "`grpo`), and others."
        ),
        choices_from="stage",
        level="basic",
        source="LLaMA-Factory",
    )
    pref_beta: float = option(
        0.1,
        label="Beta",
        help=(
            "Coefficient β of the preference losses: how strongly the policy is held to the reference model. "
            "Typical: 0.1."
        ),
        above=0,
        level="basic",
        source="LLaMA-Factory",
        trait="compares",
    )
    pref_ftx: float = option(
        0.0,
        label="SFT loss weight",
        help="Adds the SFT loss of the chosen answers (mean over tokens) with this weight.",
        minimum=0,
        source="LLaMA-Factory",
        trait="compares",
    )
    ref_model: str | None = option(
        None,
        unset="the model before its first step",
        label="Reference model",
        help="Model that the policy is compared with. Default: the model before the first step.",
        source="LLaMA-Factory",
        path="model",
        trait="has_reference",
    )
    ref_model_adapters: Names | None = option(
        None,
        unset="none",
        label="Reference model adapters",
        help="Adapters to merge into the reference model.",
        source="LLaMA-Factory",
        path="adapters",
        trait="has_reference",
    )
    ref_model_quantization_bit: Literal[4, 8] | None = option(
        None,
        unset="none",
        label="Reference model bits",
        help="Loads the reference model quantized to 4 or 8 bits.",
        choices=(4, 8),
        source="LLaMA-Factory",
        trait="has_reference",
    )
    precompute_ref_log_probs: bool | None = option(
        None,
        unset="where it takes no more work",
        label="Precompute reference log-probabilities",
        help=(
            "Computes the reference's log-probabilities of all examples before training. Default: where this takes "
            "no more work."
        ),
        source="Hugging Face",
        trait="compares",
    )
    reward_functions: Names | None = option(
        None,
        unset="none",
        label="Reward functions",
        help="Functions that score an answer: `format`, `correct`, `length`, or functions of a cell (@llf.reward).",
        level="basic",
        trait="uses_rewards",
    )
    reward_weights: Names | None = option(
        None,
        unset="all count alike",
        label="Reward weights",
        help="Weight of each reward function. Default: 1 each.",
        source="Hugging Face",
        trait="uses_rewards",
    )
    reward_pattern: str | None = option(
        None,
        unset="<think>…</think><answer>…</answer>",
        label="Format pattern",
        help="Regular expression of the reward `format`. Default: <think>…</think><answer>…</answer>.",
        trait="uses_rewards",
    )
    num_generations: int = option(
        8,
        label="Completions per prompt",
        help="Completions to sample for each prompt. They are compared with each other.",
        minimum=2,
        level="basic",
        source="Hugging Face",
        trait="samples_groups",
    )
    max_completion_length: int = option(
        512,
        label="Maximum completion length",
        help="Completions are truncated after this many tokens.",
        unit="tokens",
        minimum=1,
        level="basic",
        source="Hugging Face",
        trait="samples_groups",
    )
    beta: float | None = option(
        None,
        unset="by the stage",
        label="KL penalty",
        help=(
            "Coefficient β: how strongly the policy is held to the reference model. Default: 0 for GRPO (no "
            "reference model is loaded), 0.05 for RLOO."
        ),
        minimum=0,
        source="Hugging Face",
        trait="samples_groups",
    )
    epsilon: float = option(
        0.2,
        label="Clip range",
        help="Clip range ε of the probability ratio (PPO, eq. 7).",
        above=0,
        source="Hugging Face",
        trait="samples_groups",
    )
    epsilon_high: float | None = option(
        None,
        unset="auto: {epsilon}",
        label="Upper clip range",
        help="Upper clip range of the probability ratio. Default: ε. DAPO uses 0.28.",
        above=0,
        source="Hugging Face",
        trait="samples_groups",
    )
    num_iterations: int = option(
        1,
        label="Iterations per batch",
        help="Number of passes over the same completions before new ones are sampled (μ).",
        minimum=1,
        maximum=1000,
        source="Hugging Face",
        trait="samples_groups",
    )
    mask_truncated_completions: bool = option(
        False,
        label="Mask truncated completions",
        help="Excludes completions that reached the maximum length from the loss.",
        source="Hugging Face",
        trait="samples_groups",
    )
    kept_completions: int = option(
        4,
        label="Completions shown",
        help="Completions of each logged step to store with their rewards.",
        minimum=0,
        trait="uses_rewards",
    )
