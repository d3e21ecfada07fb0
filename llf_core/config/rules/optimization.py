"""Rules about step size, schedule and length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.config.classify_key import show
from llf_core.config.number_format import exact, with_unit
from llf_core.config.problem import Fix
from llf_core.config.registry import optimizer_of
from llf_core.config.rule import Rule
from llf_core.config.rules.conditions import weights_frozen
from llf_core.config.rules.data import has_data_kind
from llf_core.config.rules.mappings import OPTIMIZERS, SCHEDULES, optimizer_options, rejected_options

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

MIN_LR_SCHEDULES = {"cosine_with_min_lr", "cosine_warmup_with_min_lr"}
BY_EVALUATION = {"reduce_lr_on_plateau", "greedy"}
GREEDY_FLOOR = 1e-3
"""`min_lr` of the greedy schedule in transformers."""
POLYNOMIAL_END = 1e-7
"""`lr_end` of the polynomial schedule in transformers."""
NO_WARMUP = {"constant", "reduce_lr_on_plateau", "greedy"}
"""Schedules to which transformers passes no warmup."""
HIGHEST_FULL_RATE = 2e-4
OURS = "llf_core."


def _schedule_refuses(c: ConfigValues) -> str:
    """The first option that the schedule rejects, as a sentence; empty if it accepts all."""
    kind, given = c.optimizer.lr_scheduler_type, c.optimizer.lr_scheduler_kwargs or {}
    if kind not in SCHEDULES:
        return ""
    wrong = rejected_options("lr_scheduler_kwargs", given, SCHEDULES[kind], f"The schedule {kind}")
    if not wrong and {"min_lr", "min_lr_rate"} <= given.keys():
        return "`lr_scheduler_kwargs` has both `min_lr` and `min_lr_rate`. Expected one of them."
    if not wrong and given.get("factor", 0) >= 1:
        return f"`factor` in `lr_scheduler_kwargs` is {show(given['factor'])}. Expected a number below 1."
    return wrong


def _schedule_option(c: ConfigValues, name: str, default: float) -> float:
    """A number in `lr_scheduler_kwargs`; -inf for what is no number, which `_schedule_refuses` reports."""
    value = (c.optimizer.lr_scheduler_kwargs or {}).get(name, default)
    return value if isinstance(value, int | float) else -math.inf


def _greedy_floor(c: ConfigValues) -> float:
    return _schedule_option(c, "min_lr", GREEDY_FLOOR)


def _polynomial_end(c: ConfigValues) -> float:
    return _schedule_option(c, "lr_end", POLYNOMIAL_END)


def _lower_end(c: ConfigValues) -> tuple[Fix, ...]:
    rate, options = c.optimizer.learning_rate, c.optimizer.lr_scheduler_kwargs or {}
    if rate > 0:
        return (Fix("Set lr_end to a tenth of the rate", {"lr_scheduler_kwargs": {**options, "lr_end": rate / 10}}),)
    others = {name: value for name, value in options.items() if name != "lr_end"}
    return (Fix("Reset both to the defaults", {"learning_rate": None, "lr_scheduler_kwargs": others or None}),)


def _optimizer_refuses(c: ConfigValues) -> str:
    """The first option that the optimizer rejects, as a sentence; empty if it accepts all."""
    kind, given = c.optimizer.optim, optimizer_options(c.optimizer.optim_args)
    if kind not in OPTIMIZERS:
        return ""
    wrong = rejected_options("optim_args", given, OPTIMIZERS[kind], f"The optimizer {kind}")
    numbers = {name: value for name, value in given.items() if not isinstance(value, str)}
    below = next((name for name, value in numbers.items() if not wrong and value < 0), None)
    if below is not None:
        return f"`{below}` in `optim_args` is {show(given[below])}. Expected a number of at least 0."
    if not wrong and given.get("nesterov") and (not given.get("momentum") or given.get("dampening")):
        return "Nesterov momentum (`optim_args`) needs a `momentum` above 0 and no `dampening`."
    return wrong


def _has_no_options(c: ConfigValues) -> bool:
    """Whether `optim_args` is set for an optimizer of LLF or transformers that reads none."""
    selected = optimizer_of(c)
    ours = not selected.implementation or selected.implementation.startswith(OURS)
    return bool(c.optimizer.optim_args) and ours and selected.name not in OPTIMIZERS


OPTIMIZATION = (
    Rule(
        ("lr_scheduler_kwargs", "lr_scheduler_type"),
        lambda c: bool(_schedule_refuses(c)),
        _schedule_refuses,
        (Fix("Remove the options", {"lr_scheduler_kwargs": None}),),
    ),
    Rule(
        ("optim_args", "optim"),
        lambda c: bool(_optimizer_refuses(c)),
        _optimizer_refuses,
        (Fix("Remove the options", {"optim_args": None}),),
    ),
    Rule(
        ("optim_args", "optim"),
        _has_no_options,
        lambda c: f"`optim_args` has no effect: the optimizer {optimizer_of(c).name} has no options.",
        (Fix("Remove the options", {"optim_args": None}),),
        severity="note",
    ),
    Rule(
        ("lr_scheduler_type", "eval_strategy"),
        lambda c: c.optimizer.lr_scheduler_type in BY_EVALUATION and c.training.eval_strategy == "no",
        "This schedule depends on the evaluation loss, but `eval_strategy` is no.",
        (
            Fix("Use the cosine schedule", {"lr_scheduler_type": "cosine"}),
            Fix("Evaluate each epoch", {"eval_strategy": "epoch", "val_size": 0.05, "eval_dataset": None}),
        ),
    ),
    Rule(
        ("lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate"),
        lambda c: c.optimizer.lr_scheduler_type == "greedy" and c.optimizer.learning_rate <= _greedy_floor(c),
        lambda c: (
            f"The greedy schedule never goes below its `min_lr` of {exact(_greedy_floor(c))}, and the learning rate is "
            f"{exact(c.optimizer.learning_rate)}: it could only rise. Expected a lower `min_lr` in "
            "`lr_scheduler_kwargs`."
        ),
        lambda c: (
            Fix(
                "Set min_lr to a tenth of the rate",
                {
                    "lr_scheduler_kwargs": {
                        **(c.optimizer.lr_scheduler_kwargs or {}),
                        "min_lr": c.optimizer.learning_rate / 10,
                        "max_lr": c.optimizer.learning_rate * 10,
                    }
                },
            ),
        ),
    ),
    Rule(
        ("lr_scheduler_type", "lr_scheduler_kwargs"),
        lambda c: (
            c.optimizer.lr_scheduler_type in MIN_LR_SCHEDULES
            and not {"min_lr", "min_lr_rate"}.intersection(c.optimizer.lr_scheduler_kwargs or {})
        ),
        "This schedule needs a minimum learning rate. Expected `min_lr` or `min_lr_rate` in `lr_scheduler_kwargs`.",
        (Fix("Set min_lr_rate to 0.1", {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}}),),
    ),
    Rule(
        ("lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate"),
        lambda c: c.optimizer.lr_scheduler_type == "polynomial" and c.optimizer.learning_rate <= _polynomial_end(c),
        lambda c: (
            f"The polynomial schedule ends at its `lr_end` of {exact(_polynomial_end(c))}, and the learning rate is "
            f"{exact(c.optimizer.learning_rate)}. Expected a lower `lr_end` in `lr_scheduler_kwargs`, or a higher "
            "learning rate."
        ),
        _lower_end,
    ),
    Rule(
        ("lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate"),
        lambda c: (
            c.optimizer.lr_scheduler_type in MIN_LR_SCHEDULES
            and c.optimizer.learning_rate == 0
            and "min_lr" in (c.optimizer.lr_scheduler_kwargs or {})
        ),
        "This schedule divides its `min_lr` by the learning rate, which is 0. Expected a learning rate above 0, or "
        "`min_lr_rate` in `lr_scheduler_kwargs`.",
        (Fix("Reset the learning rate to the default", {"learning_rate": None}),),
    ),
    Rule(
        ("label_smoothing_factor", "stage"),
        lambda c: c.training.label_smoothing_factor > 0 and not has_data_kind(c, "answers", "texts"),
        lambda c: f"Label smoothing is for the stages sft and pt: stage {c.stage.stage} has no loss per token.",
        (Fix("Set to 0", {"label_smoothing_factor": 0.0}),),
    ),
    Rule(
        ("learning_rate",),
        lambda c: c.optimizer.learning_rate == 0,
        "The learning rate is 0, so nothing is learned.",
        (Fix("Reset to the default", {"learning_rate": None}),),
        severity="warning",
    ),
    Rule(
        ("learning_rate", "finetuning_type"),
        lambda c: not weights_frozen(c) and c.optimizer.learning_rate > HIGHEST_FULL_RATE,
        lambda c: (
            f"The learning rate is {exact(c.optimizer.learning_rate)}, and all weights are trained: "
            "the model may forget what it knew. Typical: 1e-5."
        ),
        (Fix("Set to 1e-5", {"learning_rate": 1e-5}),),
        severity="warning",
    ),
    Rule(
        ("warmup_steps", "max_steps"),
        lambda c: 1 <= c.training.max_steps <= c.optimizer.warmup_steps and c.optimizer.warmup_steps >= 1,
        lambda c: (
            f"The warmup takes {exact(c.optimizer.warmup_steps)} of {c.training.max_steps} steps, so the "
            "learning rate never reaches its full value."
        ),
        (Fix("Warm up over 10 %", {"warmup_steps": 0.1}),),
        severity="warning",
    ),
    Rule(
        ("warmup_steps", "lr_scheduler_type"),
        lambda c: c.optimizer.warmup_steps > 0 and c.optimizer.lr_scheduler_type in NO_WARMUP,
        lambda c: f"`warmup_steps` has no effect: the schedule {c.optimizer.lr_scheduler_type} has no warmup.",
        lambda c: (
            *(
                [Fix("Warm up, then keep the rate", {"lr_scheduler_type": "constant_with_warmup"})]
                if c.optimizer.lr_scheduler_type == "constant"
                else []
            ),
            Fix("Remove it", {"warmup_steps": None}),
        ),
        severity="note",
    ),
    Rule(
        ("max_steps", "num_train_epochs"),
        lambda c: (
            c.training.max_steps > 0
            and c.training.num_train_epochs != type(c.training).model_fields["num_train_epochs"].default
        ),
        lambda c: f"Steps override Epochs: the run ends after {with_unit(c.training.max_steps, 'step')}.",
        (Fix("Use epochs", {"max_steps": -1}),),
        severity="note",
    ),
)
