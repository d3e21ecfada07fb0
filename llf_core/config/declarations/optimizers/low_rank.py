"""Weights that GaLore and APOLLO project."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.config.problem import Fix, Problem
from llf_core.config.weight_shapes import LAYER

if TYPE_CHECKING:
    from collections.abc import Mapping

ALL = "all"
MATRICES = (2, 3)
"""Dimensions of a linear layer's weight, and of one that holds all experts of a layer."""
EMBEDDINGS = ("embed", "wte", "wpe")
SMALLEST_8BIT = 4096
"""Fewer values are kept in full by an 8-bit optimizer (`min_8bit_size` of bitsandbytes)."""
EIGHT_BIT = 1 + 4 / 256
"""Bytes of a value in 8 bits with its share of a scale: one float32 for 256 values, as in bitsandbytes."""


def is_target(name: str, shape: tuple[int, ...], targets: tuple[str, ...]) -> bool:
    """Whether a weight is to be projected, by its name. Embeddings and vectors never are.

    Args:
        targets: parts of names, as in LLaMA-Factory, or `all` for every matrix inside the layers.
    """
    if len(shape) not in MATRICES or any(part in name for part in EMBEDDINGS):
        return False
    return bool(LAYER.search(name)) if ALL in targets else any(target in name for target in targets)


def projected(shapes: Mapping[str, tuple[int, ...]], targets: tuple[str, ...], rank: int) -> dict[str, tuple[int, ...]]:
    """Select the weights that are projected; the others get full moments.

    With `all`, matrices with a side below the rank are left out, since a projection would save nothing.
    """
    return {
        name: shape
        for name, shape in shapes.items()
        if is_target(name, shape, targets) and (ALL not in targets or min(shape[-2:]) >= rank)
    }


def check_projections(
    shapes: Mapping[str, tuple[int, ...]], targets: tuple[str, ...], rank: int, prefix: str
) -> Problem | None:
    """Check that each target matches some weight, and that the rank is not above their shorter sides.

    With `all`, matrices with a side below the rank are not projected, so it is enough that one has none.

    Args:
        prefix: of the keys, such as `galore`.
    """
    inside = {name: shape for name, shape in shapes.items() if is_target(name, shape, (ALL,))}
    expected = f"`all`, or some of {', '.join(sorted({name.split('.')[-2] for name in inside}))}"
    for target in targets or ("",):
        if not target or not any(is_target(name, shape, (target,)) for name, shape in shapes.items()):
            missing = "no matrix inside the model's layers" if target == ALL else "no matrix with that name"
            return _problem(
                f"{prefix}_target",
                target,
                f"`{prefix}_target` is {target!r}, and {missing} is trained. Expected "
                f"{expected if inside else 'finetuning_type full or freeze, and a model with linear layers'}.",
                Fix("Use all", {f"{prefix}_target": ALL}),
            )
    meant = {name: min(shape[-2:]) for name, shape in shapes.items() if is_target(name, shape, targets)}
    name = (max if ALL in targets else min)(meant, key=meant.__getitem__)
    if rank > meant[name]:
        return _problem(
            f"{prefix}_rank",
            rank,
            f"`{prefix}_rank` is {rank}, and {name} is {' x '.join(map(str, shapes[name]))}. Expected a rank of "
            f"at most {meant[name]}.",
            Fix(f"Set to {meant[name]}", {f"{prefix}_rank": meant[name]}),
        )
    return None


def _problem(key: str, value: object, message: str, fix: Fix) -> Problem:
    return Problem("unresolved", key, value, message, (fix,), keys=(key, "model_name_or_path"))


def moment_bytes(base: str, shape: tuple[int, ...], width: int) -> float:
    """Bytes of the moments of a gradient: two of its shape as in Adam, or what the base optimizer keeps instead.

    Adafactor (arXiv 1804.04235, section 3) keeps a row and a column of float32. 8-bit optimizers (arXiv 2110.02861)
    keep bytes, and a float32 scale for each block; bitsandbytes leaves small parameters in full.

    Args:
        width: bytes of a value that is kept in full.
    """
    size = math.prod(shape)
    if base == "adafactor":
        factored = size // shape[-1] + size // shape[-2] if len(shape) > 1 else size
        return 4 * factored
    if "8bit" in base and size >= SMALLEST_8BIT:
        return 2 * EIGHT_BIT * size
    return 2 * width * size
