"""BAdam: Adam on one block of parameters at a time (arXiv 2404.02827)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from llf_core.config.declaration import OptimizerDeclaration, OptimizerMemory
from llf_core.config.option import Section, option
from llf_core.config.registry import optimizer_of, stage_of
from llf_core.config.rule import Fix, Problem, Rule, no_effect
from llf_core.config.weight_shapes import LAYER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

MASTER_BYTES = 4
UNTRAINED = ("embed", "wte", "wpe", "lm_head")
"""Parts of the names of embeddings and heads, which the mode `ratio` does not train."""
SMALL = 100
"""Parameters of fewer values are updated whole in the mode `ratio`; chosen by hand."""


class BAdamOptions(Section):
    """Options of BAdam."""

    use_badam: bool = option(
        False,
        label="Use BAdam",
        help="Selects BAdam, as `optim: badam` does.",
        source="LLaMA-Factory",
    )
    badam_mode: Literal["layer", "ratio"] = option(
        "layer",
        label="BAdam mode",
        help="`layer` trains one layer at a time; `ratio` a share of the values of each weight.",
        choices=("layer", "ratio"),
        level="basic",
        source="LLaMA-Factory",
    )
    badam_start_block: int | None = option(
        None,
        unset="auto",
        label="First block",
        help="Layer that is trained first, counted from 0.",
        minimum=0,
        source="LLaMA-Factory",
    )
    badam_switch_mode: Literal["ascending", "descending", "random", "fixed"] = option(
        "ascending",
        label="Order of blocks",
        help="Which layer follows: the next, the one before, one drawn at random without repetition, or the same.",
        choices=("ascending", "descending", "random", "fixed"),
        source="LLaMA-Factory",
    )
    badam_switch_interval: int = option(
        50,
        label="Steps per block",
        help="Steps for which a layer is trained before the next follows. -1 never switches.",
        unit="steps",
        minimum=-1,
        source="LLaMA-Factory",
    )
    badam_update_ratio: float = option(
        0.05,
        label="Updated share",
        help="Share of the values of each weight that is trained at a time, in the mode `ratio`.",
        above=0,
        maximum=1,
        source="LLaMA-Factory",
    )
    badam_mask_mode: Literal["adjacent", "scatter"] = option(
        "adjacent",
        label="Updated values",
        help="Which values of a weight: adjacent ones, or ones drawn at random. In the mode ratio.",
        choices=("adjacent", "scatter"),
        source="LLaMA-Factory",
    )
    badam_verbose: int = option(
        0,
        label="BAdam's log",
        help="1 logs each block when it begins, 2 its parameters too.",
        minimum=0,
        maximum=2,
        source="LLaMA-Factory",
    )


def block_indices(names: Mapping[str, object]) -> list[int]:
    """Indices of the layers that have trained parameters, ascending."""
    return sorted({int(found.group(1)) for name in names if (found := LAYER.search(f".{name}"))})


def memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
    """Estimate the memory of moments, float32 copies and gradients of the largest block, or of the mode `ratio`.

    Only the block in training has a state and gradients (BAdam, arXiv 2404.02827). In the mode `ratio` a share of each
    weight has moments, with an index of 8 bytes if it is scattered, and all of it has gradients. Embeddings and heads
    (`UNTRAINED`) have neither, and parameters of fewer than `SMALL` values count as a whole.
    """
    options = config.options(BAdamOptions)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    if options.badam_mode == "ratio":
        index = 8 if options.badam_mask_mode == "scatter" else 0
        trained = [size for name, size in sizes.items() if not any(part in name for part in UNTRAINED)]
        kept = sum(size if size < SMALL else options.badam_update_ratio * size for size in trained)
        return OptimizerMemory(kept * (2 * width + index), sum(trained))
    blocks: dict[str, int] = {}
    for name, size in sizes.items():
        if found := LAYER.search(f".{name}"):
            blocks[found.group(1)] = blocks.get(found.group(1), 0) + size
    largest = max(blocks.values(), default=0)
    master = MASTER_BYTES if width < MASTER_BYTES else 0
    return OptimizerMemory(largest * (2 * MASTER_BYTES + master), largest)


def check_shapes(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check that the model has layers to train one at a time, and the first one."""
    options = config.options(BAdamOptions)
    count, start = len(block_indices(shapes)), options.badam_start_block
    if options.badam_mode != "layer" or (count and (start is None or start < count)):
        return None
    if not count:
        message = "BAdam trains one layer at a time, and no parameter is inside a layer. Expected `badam_mode: ratio`."
        fix = Fix("Use the mode ratio", {"badam_mode": "ratio"})
        return Problem("unresolved", "badam_mode", "layer", message, (fix,), keys=("badam_mode", "model_name_or_path"))
    message = f"`badam_start_block` is {start}, and {count} layers are trained. Expected 0 to {count - 1}."
    fix = Fix("Remove it", {"badam_start_block": None})
    keys = ("badam_start_block", "model_name_or_path")
    return Problem("unresolved", "badam_start_block", start, message, (fix,), keys=keys)


KEYS_OF_MODE = {
    "layer": ("badam_start_block", "badam_switch_mode", "badam_switch_interval"),
    "ratio": ("badam_update_ratio", "badam_mask_mode"),
}
"""Options that only one mode reads."""


def _in_other_mode(config: ConfigValues, mode: str) -> bool:
    return optimizer_of(config).name == "badam" and config.options(BAdamOptions).badam_mode != mode


RULES = (
    Rule(
        ("badam_mode", "stage", "optim", "use_badam"),
        lambda config: (
            optimizer_of(config).name == "badam"
            and config.options(BAdamOptions).badam_mode == "layer"
            and stage_of(config).trains_value_function
        ),
        "BAdam trains one layer at a time, and the value function of PPO must learn at every step. Expected "
        "`badam_mode: ratio`, or another optimizer.",
        (Fix("Use the mode ratio", {"badam_mode": "ratio"}),),
    ),
    Rule(
        ("badam_switch_interval",),
        lambda config: config.options(BAdamOptions).badam_switch_interval == 0,
        "`badam_switch_interval` is 0. Expected an integer of at least 1, or -1 to train one block only.",
        (Fix("Set to 50", {"badam_switch_interval": 50}),),
    ),
    *(
        no_effect(BAdamOptions, key, f"badam_mode: {mode}", lambda c, mode=mode: _in_other_mode(c, mode))  # type: ignore[misc]
        for mode, keys in KEYS_OF_MODE.items()
        for key in keys
    ),
)
BADAM = OptimizerDeclaration(
    name="badam",
    label="BAdam",
    implementation="llf_core.optimizers.badam:BAdam",
    options=BAdamOptions,
    rules=RULES,
    summary=(
        "AdamW on one layer at a time: gradients and state of one layer only, and a shorter backward pass. Take it to "
        "train a whole model in little more than its weights."
    ),
    paper="arXiv 2404.02827",
    switch="use_badam",
    bases=("adamw_torch_fused", "adamw_torch"),
    memory=memory,
    trains_adapters=False,
    keeps_masters=True,
    one_process=lambda _: True,
    check_shapes=check_shapes,
)
