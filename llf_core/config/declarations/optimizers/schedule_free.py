"""Schedule-free optimizers: averages of weights in place of a learning rate schedule (arXiv 2405.15682)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import OptimizerDeclaration
from llf_core.config.declarations.optimizers.moments import moments
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

NAMES = ("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd")
CONSTANT = ("constant", "constant_with_warmup")
RADAM_BETA2 = 0.6
"""The longest average, `2 / (1 - β₂) - 1`, is above 4 only beyond it (arXiv 1908.03265, algorithm 2)."""
Z_AND_MOMENT, Z = 2, 1
"""Tensors of state for each parameter: AdamW keeps weights z and a second moment, SGD the weights z."""


def _declaration(name: str, label: str, summary: str, tensors: int) -> OptimizerDeclaration:
    return OptimizerDeclaration(
        name=name,
        label=label,
        implementation="llf_core.optimizers.schedule_free:ScheduleFree",
        summary=summary,
        paper="arXiv 2405.15682",
        state_bytes=4.0 * tensors,
        memory=moments(tensors),
        rules=RULES if name == NAMES[0] else (),
    )


def _is_scheduled(config: ConfigValues) -> bool:
    return config.optimizer.optim in NAMES and config.optimizer.lr_scheduler_type not in CONSTANT


RULES = (
    Rule(
        ("lr_scheduler_type", "optim"),
        _is_scheduled,
        lambda config: (
            f"A schedule-free optimizer averages weights in place of a schedule, and `lr_scheduler_type` is "
            f"{config.optimizer.lr_scheduler_type}. Expected constant or constant_with_warmup."
        ),
        (
            Fix("Keep the rate constant", {"lr_scheduler_type": "constant"}),
            Fix("Warm up, then keep it", {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.05}),
        ),
        severity="warning",
    ),
    Rule(
        ("adam_beta1", "optim"),
        lambda config: config.optimizer.optim in NAMES and config.optimizer.adam_beta1 == 0,
        "`adam_beta1` is 0, and a schedule-free optimizer interpolates with it. Expected a number above 0.",
        (Fix("Set to 0.9", {"adam_beta1": 0.9}),),
    ),
    Rule(
        ("adam_beta2", "optim"),
        lambda config: config.optimizer.optim == NAMES[1] and config.optimizer.adam_beta2 <= RADAM_BETA2,
        lambda config: (
            f"`adam_beta2` is {config.optimizer.adam_beta2:g}, with which RAdam never knows the variance of a gradient "
            f"and changes no weight. Expected a number above {RADAM_BETA2:g}."
        ),
        (Fix("Set to 0.999", {"adam_beta2": 0.999}),),
    ),
)
SCHEDULE_FREE = (
    _declaration(
        NAMES[0],
        "Schedule-free AdamW",
        "AdamW without a learning rate schedule: needs no number of steps, and AdamW's memory. Take it where a run has "
        "no fixed end.",
        Z_AND_MOMENT,
    ),
    _declaration(
        NAMES[1],
        "Schedule-free RAdam",
        "Schedule-free AdamW that needs no warm-up either. Take it where a run has no fixed end.",
        Z_AND_MOMENT,
    ),
    _declaration(
        NAMES[2],
        "Schedule-free SGD",
        "SGD without a learning rate schedule, half of AdamW's state. Take it with a learning rate of 0.1 to 10.",
        Z,
    ),
)
