"""Variants of AdamW with as many moments: StableAdamW, GrokAdamW and AnyPrecision AdamW."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.config.declaration import OptimizerDeclaration, OptimizerMemory
from llf_core.config.declarations.optimizers.moments import moments
from llf_core.config.rules.mappings import optimizer_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
HALF = 2
"""Bytes of a value that is updated with Kahan summation."""


def _stable_memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
    """StableAdamW (arXiv 2304.13013): two moments, and the rounding errors of half-precision weights (Kahan)."""
    given = optimizer_options(config.optimizer.optim_args)
    size = sum(map(math.prod, shapes.values()))
    return OptimizerMemory(size * width * (3 if width <= HALF and given.get("kahan_sum", True) else 2), size)


def _any_precision_memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
    """Moments and Kahan summation in the dtypes of `optim_args`, as in `AnyPrecisionAdamW` of torchdistx."""
    del width
    given = optimizer_options(config.optimizer.optim_args)
    size = sum(map(math.prod, shapes.values()))
    kept = BYTES[given.get("momentum_dtype", "float32")] + BYTES[given.get("variance_dtype", "float32")]
    if given.get("use_kahan_summation"):
        kept += BYTES[given.get("compensation_buffer_dtype", "bfloat16")]
    return OptimizerMemory(size * kept, size)


ADAM_VARIANTS = (
    OptimizerDeclaration(
        name="stable_adamw",
        label="StableAdamW",
        implementation="llf_core.optimizers.adam_variants:StableAdamW",
        summary=(
            "AdamW that lowers its rate where gradients are larger than their moments say; AdamW's memory. Take it "
            "where the loss has spikes."
        ),
        paper="arXiv 2304.13013",
        memory=_stable_memory,
    ),
    OptimizerDeclaration(
        name="grokadamw",
        label="GrokAdamW",
        implementation="llf_core.optimizers.adam_variants:GrokAdamW",
        summary=(
            "AdamW with slow gradients amplified, for delayed generalization; half as much state again. Take it for "
            "small data sets and many epochs."
        ),
        paper="arXiv 2405.20233",
        state_bytes=12.0,
        memory=moments(3),
    ),
    OptimizerDeclaration(
        name="adamw_anyprecision",
        label="AdamW, any precision",
        implementation="llf_core.optimizers.adam_variants:AnyPrecisionAdamW",
        summary=(
            "AdamW with moments in dtypes of your choice and Kahan summation: half of AdamW's state in bfloat16. Take "
            "it with pure_bf16."
        ),
        memory=_any_precision_memory,
    ),
)
