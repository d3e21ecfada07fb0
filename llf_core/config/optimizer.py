from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from llf_core.config.option import Object, Section, Steps, option

Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
]


def assignments(value: str) -> str:
    """Check the text of `optim_args`: `name=value`, separated by commas."""
    for part in value.replace(" ", "").split(",") if value else ():
        name, sign, given = part.partition("=")
        if not name.isidentifier() or not sign or not given or "=" in given:
            raise ValueError("Expected `name=value`, separated by commas, for example `momentum=0.9`.")
    return value


Assignments = Annotated[str, AfterValidator(assignments)]
SCHEDULERS: tuple[str, ...] = get_args(Scheduler)


class OptimizerSection(Section):
    """Optimizer, learning rate and schedule."""

    learning_rate: float = option(
        5e-5,
        label="Learning rate",
        help="Step size of the optimizer. Typical: 1e-4 for LoRA, 1e-5 for full fine-tuning.",
        minimum=0,
        level="basic",
        source="Hugging Face",
    )
    lr_scheduler_type: Scheduler = option(
        "linear",
        label="Learning rate schedule",
        help="How the learning rate changes over the run.",
        choices=SCHEDULERS,
        level="basic",
        source="Hugging Face",
    )
    lr_scheduler_kwargs: Object | None = option(
        None,
        unset="none",
        label="Schedule options",
        help="Further arguments of the schedule, such as `{min_lr: 1e-6}`.",
        source="Hugging Face",
    )
    warmup_steps: Steps = option(
        0,
        label="Warmup steps",
        help="Steps over which the learning rate rises from 0. Below 1: a share of all steps.",
        minimum=0,
        level="basic",
        source="Hugging Face",
    )
    optim: str = option(
        "adamw_torch_fused",
        label="Optimizer",
        help="Optimizer. The 8-bit ones keep their state in a quarter of the memory.",
        choices_from="optimizer",
        source="Hugging Face",
    )
    optim_args: Assignments | None = option(
        None,
        unset="none",
        label="Optimizer options",
        help="Further arguments of the optimizer, as `name=value,name=value`.",
        source="Hugging Face",
    )
    weight_decay: float = option(
        0.0,
        label="Weight decay",
        help="Decoupled weight decay (AdamW). Typical: 0 to 0.1.",
        minimum=0,
        source="Hugging Face",
    )
    adam_beta1: float = option(
        0.9,
        label="Adam beta 1",
        help="Decay rate of Adam's running mean of gradients.",
        minimum=0,
        below=1,
        source="Hugging Face",
    )
    adam_beta2: float = option(
        0.999,
        label="Adam beta 2",
        help="Decay rate of Adam's running mean of squared gradients.",
        minimum=0,
        below=1,
        source="Hugging Face",
    )
    adam_epsilon: float = option(
        1e-8,
        label="Adam epsilon",
        help="Added to Adam's denominator for numerical stability.",
        minimum=0,
        source="Hugging Face",
    )
    max_grad_norm: float = option(
        1.0,
        label="Gradient clipping",
        help="Maximum norm of the gradient. Larger gradients are scaled down to it; 0 switches clipping off.",
        minimum=0,
        source="Hugging Face",
    )
