from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.config.declaration import OptimizerMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.config.values import ConfigValues


def moments(number: float) -> Callable[[ConfigValues, Mapping[str, tuple[int, ...]], int], OptimizerMemory]:
    """Make the `memory` of a declaration: `number` tensors of the parameter's shape and dtype, and all gradients."""

    def memory(_config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
        size = sum(map(math.prod, shapes.values()))
        return OptimizerMemory(number * width * size, size)

    return memory
