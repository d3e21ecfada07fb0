"""Shapes of a model's weights by name, and what can be counted from them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Shapes = dict[str, tuple[int, ...]]
LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
"""The part of a weight's name that holds the index of its layer."""


def count(weights: Mapping[str, tuple[int, ...]]) -> int:
    """Count the parameters of weights, for forecasts of memory and disk.

    Args:
        weights: shape of each weight, by its name.
    """
    return sum(math.prod(shape) for shape in weights.values())
