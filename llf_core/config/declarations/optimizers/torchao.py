"""torchao's AdamW with a state of few bits, which transformers builds."""

from __future__ import annotations

from llf_core.config.declaration import OptimizerDeclaration
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.config.rules.process import lacks_compiler

EIGHT_BITS, FOUR_BITS = 2 * (1 + 4 / 256), 2 * (0.5 + 4 / 128)
"""Bytes for each trained parameter: two moments with a float32 scale for each block of values."""
NAMES = ("adamw_torch_8bit", "adamw_torch_4bit")
RULES = (
    Rule(
        ("optim", "use_cpu"),
        lambda config: config.optimizer.optim in NAMES and lacks_compiler(config),
        "torchao compiles its optimizers, which needs a C++ compiler on a CPU, and this machine has none. Expected g++ "
        "or clang++.",
        (Fix("Use 8-bit AdamW of bitsandbytes", {"optim": "adamw_8bit"}),),
        severity="warning",
    ),
)

TORCHAO = (
    OptimizerDeclaration(
        name="adamw_torch_8bit",
        label="AdamW, 8-bit state (torchao)",
        summary="AdamW with a quarter of its state, in plain PyTorch. Take it where bitsandbytes has no kernels.",
        paper="arXiv 2110.02861",
        state_bytes=EIGHT_BITS,
        rules=RULES,
        packages=("torchao",),
    ),
    OptimizerDeclaration(
        name="adamw_torch_4bit",
        label="AdamW, 4-bit state (torchao)",
        summary="AdamW with an eighth of its state, in plain PyTorch. Take it where 8 bits do not fit.",
        paper="arXiv 2309.01507",
        state_bytes=FOUR_BITS,
        packages=("torchao",),
    ),
)
