from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Shapes = dict[str, tuple[int, ...]]
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
"""The index of a weight's layer in its name."""
MATRIX = 2
"""Dimensions of the weight of a linear layer."""
LEFT_OUT = frozenset({"dt_proj", "gate", "router"})
"""Modules with a matrix that `all` leaves out: routers of experts, and Mamba's, whose weight is read directly."""


def count(weights: Mapping[str, tuple[int, ...]]) -> int:
    """Number of parameters of weights, from their shapes by name."""
    return sum(math.prod(shape) for shape in weights.values())


def targeted(
    weights: Mapping[str, tuple[int, ...]], requested: Collection[str], *, experts: bool = True
) -> dict[str, tuple[int, ...]]:
    """Select the linear layers that an adapter is put on, from the shape of each weight by its name.

    Args:
        requested: names of modules, or ends of their paths such as `mlp.up_proj`; with `all` among them, every linear
            layer inside numbered layers (`LAYER`) but `LEFT_OUT`.
        experts: whether the adapter reaches experts, which transformers keeps as parameters of three axes.

    Returns:
        Shape `(out, in)` of each weight, by its name; so is that of a `Conv1D`, as of GPT-2, whose file has `[in, out]`
        and a bias that tells.
    """
    found = {}
    ends = _ends(requested, ".weight")
    for name, shape in weights.items():
        module, inside, expert = _place(name)
        named = module in requested or f".{name}".endswith(ends)
        wanted = name.endswith(".weight") and (inside if "all" in requested else named)
        if wanted and len(shape) == MATRIX and (experts or not expert):
            bias = weights.get(f"{name.removesuffix('weight')}bias", shape[:1])
            found[name] = shape[::-1] if bias == shape[1:] else shape
    return found


def _ends(requested: Collection[str], suffix: str = "") -> tuple[str, ...]:
    """The ends of weights' names that the requested paths mean; names of one part are compared as they are."""
    return tuple(f".{one}{suffix}" for one in requested if "." in one)


@functools.lru_cache(maxsize=1 << 17)
def _place(name: str) -> tuple[str, bool, bool]:
    """Name of a weight's module, whether `all` reaches it by its name, and whether it is of experts; cached."""
    module = name.removesuffix(".weight").rsplit(".", 1)[-1]
    return module, LAYER.search(name) is not None and module not in LEFT_OUT, "experts" in name.split(".")


def expert_weights(
    weights: Mapping[str, tuple[int, ...]], requested: Collection[str]
) -> dict[str, tuple[int, int, int]]:
    """Select the parameters that hold all experts of a layer and get an adapter; each expert has matrices of its own.

    Args:
        weights: shape of each weight of a model, by its name.
        requested: names of parameters, or ends of their paths; with `all` among them, every such parameter.

    Returns:
        Shape `(experts, out, in)` of each parameter, by its name.
    """
    found = {}
    for name, shape in weights.items():
        if len(shape) != MATRIX + 1:
            continue
        *path, last = name.split(".")
        if "experts" in path and ("all" in requested or last in requested or f".{name}".endswith(_ends(requested))):
            number, out, inputs = shape
            found[name] = (number, out, inputs)
    return found
