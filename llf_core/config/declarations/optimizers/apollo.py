"""APOLLO: learning rates of channels, from gradients of low rank (arXiv 2412.05270)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from llf_core.config.declaration import OptimizerDeclaration, OptimizerMemory
from llf_core.config.declarations.optimizers.galore import projections
from llf_core.config.declarations.optimizers.low_rank import check_projections, projected
from llf_core.config.option import Names, Section, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.problem import Problem
    from llf_core.config.values import ConfigValues


class ApolloOptions(Section):
    """Options of APOLLO."""

    use_apollo: bool = option(
        False,
        label="Use APOLLO",
        help="Selects APOLLO, as `optim: apollo` does.",
        source="LLaMA-Factory",
    )
    apollo_target: Names = option(
        ("all",),
        label="Projected weights",
        help="Parts of the names of weights that are projected, or `all` for every matrix inside the layers.",
        source="LLaMA-Factory",
    )
    apollo_rank: int = option(
        16,
        label="APOLLO rank",
        help="Rank r of the projected gradients. 1 with `apollo_scale_type: tensor` is APOLLO-Mini.",
        minimum=1,
        maximum=65_536,
        level="basic",
        source="LLaMA-Factory",
    )
    apollo_update_interval: int = option(
        200,
        label="Projection interval",
        help="A new projection is drawn after this many steps.",
        unit="steps",
        minimum=1,
        source="LLaMA-Factory",
    )
    apollo_scale: float = option(
        32.0,
        label="APOLLO scale",
        help="The update is multiplied by the root of it. Typical: 1 for rank 256, 128 for APOLLO-Mini.",
        above=0,
        source="LLaMA-Factory",
    )
    apollo_proj: Literal["svd", "random"] = option(
        "random",
        label="Projection",
        help="`random` draws it anew at each step from a seed and needs no memory; `svd` computes it from a gradient.",
        choices=("svd", "random"),
        source="LLaMA-Factory",
    )
    apollo_proj_type: Literal["std", "right", "left"] = option(
        "std",
        label="Projected side",
        help="Side of a matrix that is projected: std the shorter one, right the columns, left the rows.",
        choices=("std", "right", "left"),
        source="LLaMA-Factory",
    )
    apollo_scale_type: Literal["channel", "tensor"] = option(
        "channel",
        label="Learning rates",
        help="One for each channel, or one for the whole tensor, as APOLLO-Mini has it.",
        choices=("channel", "tensor"),
        source="LLaMA-Factory",
    )
    apollo_layerwise: bool = option(
        False,
        label="Layer-wise updates",
        help="Updates each weight in the backward pass and frees its gradient. Saves the memory of all gradients.",
        source="LLaMA-Factory",
    )
    apollo_scale_front: bool = option(
        False,
        label="Scale before limiting",
        help="Scales the update before, not after, its growth is limited to 1 % a step.",
        source="LLaMA-Factory",
    )


def memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
    """Estimate the memory of moments, gradients and projections.

    APOLLO (arXiv 2412.05270) draws random projections again from a seed, so only those of an SVD are kept.
    """
    options = config.options(ApolloOptions)
    chosen = projected(shapes, options.apollo_target, options.apollo_rank)
    values = 0
    for name, shape in shapes.items():
        matrices, small = (
            projections(shape, options.apollo_rank, options.apollo_proj_type) if name in chosen else ([], shape)
        )
        kept = matrices if options.apollo_proj == "svd" else []
        values += sum(map(math.prod, kept)) + 2 * math.prod(small)
    sizes = [math.prod(shape) for shape in shapes.values()]
    return OptimizerMemory(values * width, max(sizes, default=0) if options.apollo_layerwise else sum(sizes))


def check_shapes(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check the targets and the rank against the shapes, see `check_projections`."""
    options = config.options(ApolloOptions)
    return check_projections(shapes, options.apollo_target, options.apollo_rank, "apollo")


APOLLO = OptimizerDeclaration(
    name="apollo",
    label="APOLLO",
    implementation="llf_core.optimizers.apollo:Apollo",
    options=ApolloOptions,
    summary=(
        "AdamW's learning rates by channel, from random projections: less state than GaLore, and no SVD. Take it for "
        "full fine-tuning where AdamW does not fit."
    ),
    paper="arXiv 2412.05270",
    switch="use_apollo",
    bases=("adamw_torch_fused", "adamw_torch"),
    memory=memory,
    layerwise=lambda config: config.options(ApolloOptions).apollo_layerwise,
    trains_adapters=False,
    check_shapes=check_shapes,
)
