"""Variants of AdamW with as many moments: StableAdamW, GrokAdamW and AnyPrecision AdamW.

Adam-mini: one second moment for a block of values (arXiv 2406.16793).

Muon: momentum made orthogonal, for hidden matrices (arXiv 2502.16982).

Schedule-free optimizers: averages of weights in place of a learning rate schedule (arXiv 2405.15682).

LOMO and AdaLOMO: updates fused into the backward pass (arXiv 2306.09782 and 2310.10195).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.config.declaration import OptimizerDeclaration, OptimizerMemory
from llf_core.config.option import Section, option
from llf_core.config.rule import Fix, Rule
from llf_core.config.rules.conditions import optimizer_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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


def moments(number: float) -> Callable[[ConfigValues, Mapping[str, tuple[int, ...]], int], OptimizerMemory]:
    """Make the `memory` of a declaration: `number` tensors of the parameter's shape and dtype, and all gradients."""

    def memory(_config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
        size = sum(map(math.prod, shapes.values()))
        return OptimizerMemory(number * width * size, size)

    return memory


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


class AdamMiniOptions(Section):
    """Options of Adam-mini."""

    use_adam_mini: bool = option(
        False,
        label="Use Adam-mini",
        help="Selects Adam-mini, as `optim: adam_mini` does.",
        source="LLaMA-Factory",
    )


def adam_mini_memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
    """Estimate the memory: Adam-mini (arXiv 2406.16793) keeps at most one second moment for each row."""
    del config
    sizes = sum(map(math.prod, shapes.values()))
    rows = sum(math.prod(shape[:-1]) for shape in shapes.values())
    return OptimizerMemory((sizes + rows) * width, sizes)


ADAM_MINI = OptimizerDeclaration(
    name="adam_mini",
    label="Adam-mini",
    implementation="llf_core.optimizers.adam_variants:AdamMini",
    options=AdamMiniOptions,
    summary=(
        "AdamW with one second moment for each head, row or token: half of AdamW's state, with AdamW's settings. Take "
        "it in place of AdamW."
    ),
    paper="arXiv 2406.16793",
    switch="use_adam_mini",
    bases=("adamw_torch_fused", "adamw_torch"),
    memory=adam_mini_memory,
)
MATRIX = 2

ADAMW_NAMES = ("embed", "lm_head", "wte", "wpe", "score")
"""Parts of the names of matrices that AdamW trains: embeddings and heads."""


class MuonOptions(Section):
    """Options of Muon."""

    use_muon: bool = option(
        False,
        label="Use Muon",
        help="Selects Muon, as `optim: muon` does.",
        source="LLaMA-Factory",
    )


def is_hidden(name: str, shape: tuple[int, ...]) -> bool:
    """Whether Muon trains a parameter: a matrix, but no embedding or head (arXiv 2502.16982, section 2.2)."""
    return len(shape) == MATRIX and not any(part in name for part in ADAMW_NAMES)


def muon_memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
    """Estimate the memory of one momentum for hidden matrices and two moments for all others (arXiv 2502.16982)."""
    del config
    kept = sum((1 if is_hidden(name, shape) else 2) * math.prod(shape) for name, shape in shapes.items())
    return OptimizerMemory(kept * width, sum(map(math.prod, shapes.values())))


MUON = OptimizerDeclaration(
    name="muon",
    label="Muon",
    implementation="llf_core.optimizers.muon:Muon",
    options=MuonOptions,
    summary=(
        "Makes the momentum of hidden matrices orthogonal, with AdamW for the rest: about half of AdamW's state. Take "
        "it for large batches, with AdamW's learning rate."
    ),
    paper="arXiv 2502.16982",
    switch="use_muon",
    bases=("adamw_torch_fused", "adamw_torch"),
    memory=muon_memory,
)
NAMES = ("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd")
CONSTANT = ("constant", "constant_with_warmup")

RADAM_BETA2 = 0.6
"""The longest average, `2 / (1 - β₂) - 1`, is above 4 only beyond it (arXiv 1908.03265, algorithm 2)."""

Z_AND_MOMENT, Z = 2, 1
"""Tensors of state for each parameter: AdamW keeps weights z and a second moment, SGD the weights z."""


def _declaration(name: str, label: str, summary: str, tensors: int) -> OptimizerDeclaration:
    return OptimizerDeclaration(
        name=name,
        label=label,
        implementation="llf_core.optimizers.schedule_free:ScheduleFree",
        summary=summary,
        paper="arXiv 2405.15682",
        state_bytes=4.0 * tensors,
        memory=moments(tensors),
        rules=RULES if name == NAMES[0] else (),
    )


def _is_scheduled(config: ConfigValues) -> bool:
    return config.optimizer.optim in NAMES and config.optimizer.lr_scheduler_type not in CONSTANT


RULES = (
    Rule(
        ("lr_scheduler_type", "optim"),
        _is_scheduled,
        lambda config: (
            f"A schedule-free optimizer averages weights in place of a schedule, and `lr_scheduler_type` is "
            f"{config.optimizer.lr_scheduler_type}. Expected constant or constant_with_warmup."
        ),
        (
            Fix("Keep the rate constant", {"lr_scheduler_type": "constant"}),
            Fix("Warm up, then keep it", {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.05}),
        ),
        severity="warning",
    ),
    Rule(
        ("adam_beta1", "optim"),
        lambda config: config.optimizer.optim in NAMES and config.optimizer.adam_beta1 == 0,
        "`adam_beta1` is 0, and a schedule-free optimizer interpolates with it. Expected a number above 0.",
        (Fix("Set to 0.9", {"adam_beta1": 0.9}),),
    ),
    Rule(
        ("adam_beta2", "optim"),
        lambda config: config.optimizer.optim == NAMES[1] and config.optimizer.adam_beta2 <= RADAM_BETA2,
        lambda config: (
            f"`adam_beta2` is {config.optimizer.adam_beta2:g}, with which RAdam never knows the variance of a gradient "
            f"and changes no weight. Expected a number above {RADAM_BETA2:g}."
        ),
        (Fix("Set to 0.999", {"adam_beta2": 0.999}),),
    ),
)

SCHEDULE_FREE = (
    _declaration(
        NAMES[0],
        "Schedule-free AdamW",
        "AdamW without a learning rate schedule: needs no number of steps, and AdamW's memory. Take it where a run has "
        "no fixed end.",
        Z_AND_MOMENT,
    ),
    _declaration(
        NAMES[1],
        "Schedule-free RAdam",
        "Schedule-free AdamW that needs no warm-up either. Take it where a run has no fixed end.",
        Z_AND_MOMENT,
    ),
    _declaration(
        NAMES[2],
        "Schedule-free SGD",
        "SGD without a learning rate schedule, half of AdamW's state. Take it with a learning rate of 0.1 to 10.",
        Z,
    ),
)

WIDTH = 4
"""Bytes of a value of AdaLOMO's state, which is float32."""


def lomo_memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
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
    memory=lomo_memory,
    layerwise=lambda _: True,
)
LOMO_OPTIMIZERS = (LOMO, ADALOMO)
