"""Rules about step size, schedule and length."""

from __future__ import annotations

from llf_core.config.exact import exact
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.config.rules.conditions import weights_frozen
from llf_core.config.rules.data import learns

MIN_LR_SCHEDULES = {"cosine_with_min_lr", "cosine_warmup_with_min_lr"}
HIGHEST_FULL_RATE = 2e-4

OPTIMIZATION = (
    Rule(
        ("lr_scheduler_type", "eval_strategy"),
        lambda c: c.optimizer.lr_scheduler_type == "reduce_lr_on_plateau" and c.training.eval_strategy == "no",
        "This schedule waits for the evaluation loss to stop falling, but `eval_strategy` is no.",
        (
            Fix("Take the cosine schedule", {"lr_scheduler_type": "cosine"}),
            Fix("Evaluate each epoch", {"eval_strategy": "epoch", "val_size": 0.05, "eval_dataset": None}),
        ),
    ),
    Rule(
        ("lr_scheduler_type", "lr_scheduler_kwargs"),
        lambda c: (
            c.optimizer.lr_scheduler_type in MIN_LR_SCHEDULES
            and not {"min_lr", "min_lr_rate"}.intersection(c.optimizer.lr_scheduler_kwargs or {})
        ),
        "This schedule ends at a smallest learning rate, and none is given. Expected `min_lr` or "
        "`min_lr_rate` in `lr_scheduler_kwargs`.",
        (Fix("End at a tenth", {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}}),),
    ),
    Rule(
        ("label_smoothing_factor", "stage"),
        lambda c: c.training.label_smoothing_factor > 0 and not learns(c, "answers", "texts"),
        lambda c: (
            f"Label smoothing doubts which token comes next, for sft and pt: stage {c.stage.stage} does not learn "
            "single tokens."
        ),
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
            f"The learning rate is {exact(c.optimizer.learning_rate)}, and the model's own weights are trained: "
            "it may forget what it knew. About 1e-5 is usual."
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
        (Fix("Warm up over a tenth", {"warmup_steps": 0.1}),),
        severity="warning",
    ),
    Rule(
        ("max_steps", "num_train_epochs"),
        lambda c: (
            c.training.max_steps > 0
            and c.training.num_train_epochs != type(c.training).model_fields["num_train_epochs"].default
        ),
        lambda c: f"Steps override Epochs: the run ends after {c.training.max_steps} steps.",
        (Fix("Count epochs", {"max_steps": -1}),),
        severity="note",
    ),
)
