"""The optimizers that transformers builds by their names: torch's, its own, and those of bitsandbytes.

torchao's AdamW with a state of few bits, which transformers builds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import OptimizerDeclaration
from llf_core.config.declarations.optimizers.adam_variants import moments
from llf_core.config.rule import Fix, Rule
from llf_core.config.rules.conditions import optimizer_options
from llf_core.config.rules.process import lacks_compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.config.declaration import OptimizerMemory
    from llf_core.config.values import ConfigValues


TWO, THREE, ONE, NONE = 8.0, 12.0, 4.0, 0.0
"""Bytes for each trained parameter: Adam keeps two moments in float32, AdEMAMix three, Lion and RMSprop one."""

FACTORED = 0.1
"""Bytes for each trained parameter: Adafactor keeps row and column means of the second moment."""
BITSANDBYTES = ("bitsandbytes",)
ADAMW, EIGHT_BIT, ADAFACTOR = "arXiv 1711.05101", "arXiv 2110.02861", "arXiv 1804.04235"
LION, ADEMAMIX = "arXiv 2302.06675", "arXiv 2409.03137"
PAGED = "Moves its state to main memory where a GPU is full."
QUARTER = "A quarter of the memory of its state, kept in 8 bits."

_ROWS: tuple[tuple[str, str, float, tuple[str, ...], str, str], ...] = (
    ("adamw_torch_fused", "AdamW, fused (torch)", TWO, (), "The usual choice, with 8 bytes of state.", ADAMW),
    ("adamw_torch", "AdamW (torch)", TWO, (), "The same without fused kernels, slower.", ADAMW),
    ("adamw_8bit", "AdamW, 8-bit state (bitsandbytes)", TWO / 4, BITSANDBYTES, QUARTER, EIGHT_BIT),
    ("adamw_bnb_8bit", "AdamW, 8-bit state (as adamw_8bit)", TWO / 4, BITSANDBYTES, QUARTER, EIGHT_BIT),
    ("paged_adamw_8bit", "AdamW, 8-bit paged state (bitsandbytes)", TWO / 4, BITSANDBYTES, PAGED, EIGHT_BIT),
    ("paged_adamw_32bit", "AdamW, paged state (bitsandbytes)", TWO, BITSANDBYTES, PAGED, ADAMW),
    ("adafactor", "Adafactor", FACTORED, (), "Rows and columns of the second moment: hardly any state.", ADAFACTOR),
    ("sgd", "SGD", NONE, (), "No state without momentum. Needs a larger learning rate.", ""),
    ("adagrad", "Adagrad", ONE, (), "Its rates only fall; for sparse gradients.", ""),
    ("rmsprop", "RMSprop", ONE, (), "Adam without momentum: half its state.", ""),
    ("rmsprop_bnb", "RMSprop (bitsandbytes)", ONE, BITSANDBYTES, "Adam without momentum: half its state.", ""),
    ("rmsprop_bnb_8bit", "RMSprop, 8-bit state (bitsandbytes)", ONE / 4, BITSANDBYTES, QUARTER, EIGHT_BIT),
    ("rmsprop_bnb_32bit", "RMSprop, 32-bit state (bitsandbytes)", ONE, BITSANDBYTES, "As rmsprop_bnb.", ""),
    ("lion_8bit", "Lion, 8-bit state (bitsandbytes)", ONE / 4, BITSANDBYTES, QUARTER, LION),
    ("lion_32bit", "Lion (bitsandbytes)", ONE, BITSANDBYTES, "Signs of a momentum: half the state.", LION),
    ("paged_lion_8bit", "Lion, 8-bit paged state (bitsandbytes)", ONE / 4, BITSANDBYTES, PAGED, LION),
    ("paged_lion_32bit", "Lion, paged state (bitsandbytes)", ONE, BITSANDBYTES, PAGED, LION),
    ("ademamix", "AdEMAMix (bitsandbytes)", THREE, BITSANDBYTES, "AdamW with a slow momentum too.", ADEMAMIX),
    ("ademamix_8bit", "AdEMAMix, 8-bit state (bitsandbytes)", THREE / 4, BITSANDBYTES, QUARTER, ADEMAMIX),
    ("paged_ademamix_8bit", "AdEMAMix, 8-bit paged state (bitsandbytes)", THREE / 4, BITSANDBYTES, PAGED, ADEMAMIX),
    ("paged_ademamix_32bit", "AdEMAMix, paged state (bitsandbytes)", THREE, BITSANDBYTES, PAGED, ADEMAMIX),
)  # fmt: skip
"""Name, label, bytes of state for each trained parameter, packages, summary and paper."""

_MORE = ("momentum", "centered")
"""Options of `optim_args` with which torch's SGD and RMSprop keep one more tensor for each parameter."""


def _with_options(number: float) -> Callable[[ConfigValues, Mapping[str, tuple[int, ...]], int], OptimizerMemory]:
    """Make the `memory` of SGD or RMSprop: `number` tensors of each parameter's shape, and those of `optim_args`."""

    def memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
        given = optimizer_options(config.optimizer.optim_args)
        return moments(number + sum(bool(given.get(name)) for name in _MORE))(config, shapes, width)

    return memory


TRANSFORMERS = tuple(
    OptimizerDeclaration(
        name=name,
        label=label,
        state_bytes=state_bytes,
        memory=(
            None
            if packages or state_bytes == FACTORED
            else (_with_options if name in {"sgd", "rmsprop"} else moments)(state_bytes / 4)
        ),
        packages=packages,
        summary=summary,
        paper=paper,
    )
    for name, label, state_bytes, packages, summary, paper in _ROWS
)

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
