"""GaLore: gradients projected to a low rank (arXiv 2403.03507)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from llf_core.config.declaration import OptimizerDeclaration, OptimizerMemory
from llf_core.config.declarations.optimizers.low_rank import check_projections, moment_bytes, projected
from llf_core.config.option import Names, Section, option
from llf_core.config.registry import base_optimizer_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.problem import Problem
    from llf_core.config.values import ConfigValues


class GaLoreOptions(Section):
    """Options of GaLore."""

    use_galore: bool = option(
        False,
        label="Use GaLore",
        help="Selects GaLore, as `optim: galore` does. `optim` then names the optimizer that GaLore is built on.",
        source="LLaMA-Factory",
    )
    galore_target: Names = option(
        ("all",),
        label="Projected weights",
        help="Parts of the names of weights that are projected, or `all` for every matrix inside the layers.",
        source="LLaMA-Factory",
    )
    galore_rank: int = option(
        16,
        label="GaLore rank",
        help="Rank r of the projected gradients. Higher ranks follow the gradient more closely and use more memory.",
        minimum=1,
        maximum=65_536,
        level="basic",
        source="LLaMA-Factory",
    )
    galore_update_interval: int = option(
        200,
        label="Projection interval",
        help="A new projection is computed from the gradient after this many steps.",
        unit="steps",
        minimum=1,
        source="LLaMA-Factory",
    )
    galore_scale: float = option(
        2.0,
        label="GaLore scale",
        help="Factor α on the update after it is projected back. The paper's experiments use 0.25.",
        above=0,
        source="LLaMA-Factory",
    )
    galore_proj_type: Literal["std", "reverse_std", "right", "left", "full"] = option(
        "std",
        label="Projected side",
        help=(
            "Side of a matrix that is projected: std the shorter one, reverse_std the longer one, right the columns, "
            "left the rows, full both."
        ),
        choices=("std", "reverse_std", "right", "left", "full"),
        source="LLaMA-Factory",
    )
    galore_svd: Literal["exact", "randomized"] = option(
        "exact",
        label="GaLore SVD",
        help="`randomized` finds nearly the same projections, and is much faster on large matrices (arXiv 2504.20437).",
        choices=("exact", "randomized"),
    )
    galore_layerwise: bool = option(
        False,
        label="Layer-wise updates",
        help="Updates each weight in the backward pass and frees its gradient. Saves the memory of all gradients.",
        source="LLaMA-Factory",
    )


def projections(shape: tuple[int, ...], rank: int, side: str) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """Shapes of the projection matrices and of the projected gradient of a matrix `[..., rows, columns]`.

    Algorithm 2 of GaLore (arXiv 2403.03507), for either side.

    Args:
        side: `galore_proj_type`, with the meaning that it has in galore-torch.

    Returns:
        `[..., r, columns]` (right), `[..., rows, r]` (left) or both; and the shape of the projected gradient.
    """
    *outer, rows, columns = shape
    if side in {"std", "reverse_std"}:
        side = "right" if (rows >= columns) == (side == "std") else "left"
    left, right = (*outer, rows, min(rank, rows)), (*outer, min(rank, columns), columns)
    if side == "full":
        return [left, right], (*outer, left[-1], right[-2])
    return ([right], (*outer, rows, right[-2])) if side == "right" else ([left], (*outer, left[-1], columns))


def memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
    """Estimate the memory of projections, moments and gradients (GaLore, arXiv 2403.03507, table 1)."""
    options, base = config.options(GaLoreOptions), base_optimizer_of(config).name
    chosen = projected(shapes, options.galore_target, options.galore_rank)
    state = 0.0
    for name, shape in shapes.items():
        matrices, small = (
            projections(shape, options.galore_rank, options.galore_proj_type) if name in chosen else ([], shape)
        )
        state += width * sum(map(math.prod, matrices)) + moment_bytes(base, small, width)
    sizes = [math.prod(shape) for shape in shapes.values()]
    return OptimizerMemory(state, max(sizes, default=0) if options.galore_layerwise else sum(sizes))


def check_shapes(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check the targets and the rank against the shapes, see `check_projections`."""
    options = config.options(GaLoreOptions)
    return check_projections(shapes, options.galore_target, options.galore_rank, "galore")


GALORE = OptimizerDeclaration(
    name="galore",
    label="GaLore",
    implementation="llf_core.optimizers.galore:GaLore",
    options=GaLoreOptions,
    summary=(
        "Trains all weights with moments of low rank: about a quarter of AdamW's state. Take it for full fine-tuning "
        "where AdamW does not fit."
    ),
    paper="arXiv 2403.03507",
    switch="use_galore",
    bases=("adamw_torch_fused", "adamw_torch", "adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "adafactor"),
    memory=memory,
    layerwise=lambda config: config.options(GaLoreOptions).galore_layerwise,
    trains_adapters=False,
    check_shapes=check_shapes,
)
