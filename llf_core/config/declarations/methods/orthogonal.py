"""Blocks of OFT and BOFT, which divide the inputs of each target."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.config.problem import Fix, Problem
from llf_core.config.weight_shapes import targeted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def check_divides(
    key: str, value: int, shapes: Mapping[str, tuple[int, ...]], requested: Collection[str]
) -> Problem | None:
    """Check that `value`, a number of blocks or the size of one, divides the inputs of every target, as PEFT asks."""
    targets = targeted(shapes, requested, experts=False)
    inputs = {shape[1]: name.removesuffix(".weight").rsplit(".", 1)[-1] for name, shape in sorted(targets.items())}
    odd = min((size for size in inputs if size % value), default=None)
    if odd is None:
        return None
    common = math.gcd(*inputs)
    divisors = [one for one in range(1, common + 1) if common % one == 0]
    near = min(divisors, key=lambda one: abs(one - value))
    message = (
        f"`{key}` is {value}, which does not divide the {odd} inputs of {inputs[odd]}. Expected a divisor of the "
        f"inputs of every target, such as {near}."
    )
    fixes = (Fix(f"Set to {near}", {key: near}),)
    return Problem("violation", key, value, message, fixes, keys=(key, "model_name_or_path"))
