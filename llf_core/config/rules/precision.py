"""Rules about number formats and random weights."""

from __future__ import annotations

from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.config.rules.conditions import weights_frozen

PRECISION = (
    Rule(
        ("fp16", "bf16", "pure_bf16"),
        lambda c: c.training.fp16 and (c.training.bf16 or c.training.pure_bf16),
        "Both fp16 and bf16 are enabled. Expected one of them.",
        (
            Fix("Use bf16", {"fp16": False}),
            Fix("Use fp16", {"bf16": False, "pure_bf16": False}),
        ),
    ),
    Rule(
        ("bf16", "pure_bf16"),
        lambda c: c.training.bf16 and c.training.pure_bf16,
        "`pure_bf16` already computes in bfloat16, so `bf16` has no effect.",
        (Fix("Keep float32 weights", {"pure_bf16": False}), Fix("Remove bf16", {"bf16": False})),
        severity="note",
    ),
    Rule(
        ("fp16", "use_cpu"),
        lambda c: c.training.fp16 and c.training.use_cpu,
        "fp16 needs a GPU, but `use_cpu` is true. Expected bf16 or neither.",
        (Fix("Remove fp16", {"fp16": False}),),
    ),
    Rule(
        ("tf32", "use_cpu"),
        lambda c: bool(c.training.tf32) and c.training.use_cpu,
        "TF32 is a number format of NVIDIA GPUs, but `use_cpu` is true.",
        (Fix("Remove tf32", {"tf32": None}),),
    ),
    Rule(
        ("train_from_scratch", "finetuning_type"),
        lambda c: c.model.train_from_scratch and weights_frozen(c),
        lambda c: (
            f"Training starts with random weights (train_from_scratch), and finetuning_type {c.method.finetuning_type} "
            "leaves them as they are. Expected full."
        ),
        (
            Fix("Train every weight", {"finetuning_type": "full"}),
            Fix("Load the weights", {"train_from_scratch": False}),
        ),
    ),
    Rule(
        ("train_from_scratch", "adapter_name_or_path"),
        lambda c: c.model.train_from_scratch and bool(c.model.adapter_name_or_path),
        "An adapter was trained for weights that train_from_scratch replaces by random ones.",
        (Fix("Load the weights", {"train_from_scratch": False}),),
    ),
)
