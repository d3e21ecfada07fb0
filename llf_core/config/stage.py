"""What is minimised; each stage's own options come with its plug-in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llf_core.config.option import Names, Section, option

if TYPE_CHECKING:
    from llf_core.config.run_config import RunConfig

COMPARED = ("dpo", "kto")
"""Stages that compare answers with what a reference makes of them."""
REFERENCE = ("ref_model", "ref_model_adapters", "ref_model_quantization_bit")
"""Keys that name another reference than the model before its first step."""
REFERENCE_FREE = ("orpo", "simpo")
"""Values of `pref_loss` that compare with no reference."""
REFERRING = (*COMPARED, "ppo")
"""Stages that may have another reference than that."""
SAMPLED = ("grpo", "rloo")
"""Stages that draw answers by themselves and learn from their rewards."""
JUDGED = (*SAMPLED, "ppo")
"""Stages that know reward functions."""


def names_reference(config: RunConfig) -> bool:
    """Whether a config names another reference than the model before its first step."""
    return any(config.get(key) is not None for key in REFERENCE)


class StageSection(Section):
    """What is minimised."""

    stage: str = option(
        "sft",
        label="Stage",
        help="What the model learns: the answers of conversations (`sft`), or which of two is better (`dpo`), ….",
        choices_from="stage",
        level="basic",
        source="LLaMA-Factory",
    )
    pref_beta: float = option(
        0.1,
        label="Beta",
        help="How firmly the reference is held on to: smaller lets the model go further from it.",
        above=0,
        level="basic",
        source="LLaMA-Factory",
        stages=COMPARED,
    )
    pref_ftx: float = option(
        0.0,
        label="Share of the SFT loss",
        help="Adds the loss of the better answers, as a mean over their tokens, times this.",
        minimum=0,
        source="LLaMA-Factory",
        stages=COMPARED,
    )
    ref_model: str | None = option(
        None,
        unset="the model before its first step",
        label="Reference model",
        help="What the model is compared with; unset, itself as it is before the first step.",
        source="LLaMA-Factory",
        path="model",
        stages=REFERRING,
    )
    ref_model_adapters: Names | None = option(
        None,
        unset="none",
        label="Adapters of the reference",
        help="Adapters that are merged into the reference model.",
        source="LLaMA-Factory",
        path="adapters",
        stages=REFERRING,
    )
    ref_model_quantization_bit: Literal[4, 8] | None = option(
        None,
        unset="none",
        label="Bits of the reference",
        help="Loads the reference model quantized, to 4 or 8 bits a weight.",
        choices=(4, 8),
        source="LLaMA-Factory",
        stages=REFERRING,
    )
    precompute_ref_log_probs: bool | None = option(
        None,
        unset="where it is no more work",
        label="Ask the reference once",
        help="Computes what the reference makes of each example before the training; unset, where it is no more work.",
        source="Hugging Face",
        stages=COMPARED,
    )
    reward_functions: Names | None = option(
        None,
        unset="none",
        label="Reward functions",
        help="What says how good an answer is: `format`, `correct`, `length`, or functions of a cell (@llf.reward).",
        level="basic",
        stages=JUDGED,
    )
    reward_weights: Names | None = option(
        None,
        unset="all count alike",
        label="Weights of the rewards",
        help="A number for each reward function, which its reward is multiplied by; unset, all count alike.",
        source="Hugging Face",
        stages=JUDGED,
    )
    reward_pattern: str | None = option(
        None,
        unset="<think>…</think><answer>…</answer>",
        label="Form of an answer",
        help="A regular expression for the reward `format`; unset, <think>…</think><answer>…</answer>.",
        stages=JUDGED,
    )
    num_generations: int = option(
        8,
        label="Answers a prompt",
        help="How many answers to a prompt are drawn, and compared with each other.",
        minimum=2,
        level="basic",
        source="Hugging Face",
        stages=SAMPLED,
    )
    max_completion_length: int = option(
        512,
        label="Longest drawn answer",
        help="An answer that is drawn is cut after this many tokens.",
        unit="tokens",
        minimum=1,
        level="basic",
        source="Hugging Face",
        stages=SAMPLED,
    )
    beta: float | None = option(
        None,
        unset="by the stage",
        label="Weight of the KL divergence",
        help="How firmly the model it began as is held on to; unset, 0 for GRPO (no reference) and 0.05 for RLOO.",
        minimum=0,
        source="Hugging Face",
        stages=SAMPLED,
    )
    epsilon: float = option(
        0.2,
        label="Clipping",
        help="How far, as a share, the probability of a token may move before its gradient is cut off.",
        above=0,
        source="Hugging Face",
        stages=SAMPLED,
    )
    epsilon_high: float | None = option(
        None,
        unset="auto: {epsilon}",
        label="Clipping above",
        help="The same upwards; unset, as downwards (DAPO takes 0.28).",
        above=0,
        source="Hugging Face",
        stages=SAMPLED,
    )
    num_iterations: int = option(
        1,
        label="Passes over drawn answers",
        help="How many times the same answers are learned from before others are drawn.",
        minimum=1,
        maximum=1000,
        source="Hugging Face",
        stages=SAMPLED,
    )
    mask_truncated_completions: bool = option(
        False,
        label="Leave out cut answers",
        help="Learns nothing from answers that were cut at their longest.",
        source="Hugging Face",
        stages=SAMPLED,
    )
    kept_completions: int = option(
        4,
        label="Answers kept",
        help="How many of a logged step's answers, with their rewards, are written down to be looked at.",
        minimum=0,
        stages=JUDGED,
    )
