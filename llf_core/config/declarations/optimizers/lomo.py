"""LOMO and AdaLOMO: updates fused into the backward pass (arXiv 2306.09782 and 2310.10195)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.config.declaration import OptimizerDeclaration, OptimizerMemory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

WIDTH = 4
"""Bytes of a value of AdaLOMO's state, which is float32."""


def memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
    """Estimate the memory of AdaLOMO's factored second moment, and of one gradient.

    It keeps a row and a column of float32 for each matrix, and all values of a vector (AdaLOMO, arXiv 2310.10195).
    """
    del config, width
    factors = sum(
        math.prod(shape[:-1]) + math.prod(shape[:-2]) * shape[-1] if len(shape) > 1 else math.prod(shape)
        for shape in shapes.values()
    )
    return OptimizerMemory(factors * WIDTH, max(map(math.prod, shapes.values()), default=0))


LOMO = OptimizerDeclaration(
    name="lomo",
    label="LOMO",
    implementation="llf_core.optimizers.lomo:LOMO",
    summary=(
        "SGD in the backward pass: no state, and one gradient at a time. Take it where nothing else fits, with a "
        "larger learning rate."
    ),
    paper="arXiv 2306.09782",
    state_bytes=0.0,
    layerwise=lambda _: True,
)
ADALOMO = OptimizerDeclaration(
    name="adalomo",
    label="AdaLOMO",
    implementation="llf_core.optimizers.lomo:AdaLOMO",
    summary=(
        "Adafactor in the backward pass: a state of rows and columns, and one gradient at a time. Take it for full "
        "fine-tuning in little more than the weights."
    ),
    paper="arXiv 2310.10195",
    memory=memory,
    layerwise=lambda _: True,
)
LOMO_OPTIMIZERS = (LOMO, ADALOMO)
