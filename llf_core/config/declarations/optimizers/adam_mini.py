"""Adam-mini: one second moment for a block of values (arXiv 2406.16793)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.config.declaration import OptimizerDeclaration, OptimizerMemory
from llf_core.config.option import Section, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues


class AdamMiniOptions(Section):
    """Options of Adam-mini."""

    use_adam_mini: bool = option(
        False,
        label="Use Adam-mini",
        help="Selects Adam-mini, as `optim: adam_mini` does.",
        source="LLaMA-Factory",
    )


def memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
    """Estimate the memory: Adam-mini (arXiv 2406.16793) keeps at most one second moment for each row."""
    del config
    sizes = sum(map(math.prod, shapes.values()))
    rows = sum(math.prod(shape[:-1]) for shape in shapes.values())
    return OptimizerMemory((sizes + rows) * width, sizes)


ADAM_MINI = OptimizerDeclaration(
    name="adam_mini",
    label="Adam-mini",
    implementation="llf_core.optimizers.adam_mini:AdamMini",
    options=AdamMiniOptions,
    summary=(
        "AdamW with one second moment for each head, row or token: half of AdamW's state, with AdamW's settings. Take "
        "it in place of AdamW."
    ),
    paper="arXiv 2406.16793",
    switch="use_adam_mini",
    bases=("adamw_torch_fused", "adamw_torch"),
    memory=memory,
)
