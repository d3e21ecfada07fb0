"""Weights that GaLore and APOLLO project.

GaLore: gradients projected to a low rank (arXiv 2403.03507).

APOLLO: learning rates of channels, from gradients of low rank (arXiv 2412.05270).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from llf_core.config.declaration import OptimizerDeclaration, OptimizerMemory
from llf_core.config.option import Names, Section, option
from llf_core.config.registry import base_optimizer_of
from llf_core.config.rule import Fix, Problem
from llf_core.config.weight_shapes import LAYER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

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


def galore_memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
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


def galore_check_shapes(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check the targets and the rank against the shapes, see `check_projections`."""
    options = config.options(GaLoreOptions)
    return check_projections(shapes, options.galore_target, options.galore_rank, "galore")


GALORE = OptimizerDeclaration(
    name="galore",
    label="GaLore",
    implementation="llf_core.optimizers.low_rank:GaLore",
    options=GaLoreOptions,
    summary=(
        "Trains all weights with moments of low rank: about a quarter of AdamW's state. Take it for full fine-tuning "
        "where AdamW does not fit."
    ),
    paper="arXiv 2403.03507",
    switch="use_galore",
    bases=("adamw_torch_fused", "adamw_torch", "adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "adafactor"),
    memory=galore_memory,
    layerwise=lambda config: config.options(GaLoreOptions).galore_layerwise,
    trains_adapters=False,
    check_shapes=galore_check_shapes,
)


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


def apollo_memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
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


def apollo_check_shapes(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check the targets and the rank against the shapes, see `check_projections`."""
    options = config.options(ApolloOptions)
    return check_projections(shapes, options.apollo_target, options.apollo_rank, "apollo")


APOLLO = OptimizerDeclaration(
    name="apollo",
    label="APOLLO",
    implementation="llf_core.optimizers.low_rank:Apollo",
    options=ApolloOptions,
    summary=(
        "AdamW's learning rates by channel, from random projections: less state than GaLore, and no SVD. Take it for "
        "full fine-tuning where AdamW does not fit."
    ),
    paper="arXiv 2412.05270",
    switch="use_apollo",
    bases=("adamw_torch_fused", "adamw_torch"),
    memory=apollo_memory,
    layerwise=lambda config: config.options(ApolloOptions).apollo_layerwise,
    trains_adapters=False,
    check_shapes=apollo_check_shapes,
)
