"""OFT (arXiv 2306.07280): trained rotations of the inputs of each weight, in blocks.

Blocks of OFT and BOFT, which divide the inputs of each target.

BOFT (arXiv 2311.06243): OFT whose rotation is a product of sparse ones, arranged as a butterfly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration, Tuner
from llf_core.config.option import Names, Section, option
from llf_core.config.rule import Fix, Problem, Rule
from llf_core.config.weight_shapes import targeted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from llf_core.config.values import ConfigValues

BLOCK_SIZE = 32


class OFTOptions(Section):
    """Options of OFT adapters."""

    oft_block_size: int = option(
        BLOCK_SIZE,
        label="OFT block size",
        help=(
            "Inputs that are rotated together. Larger blocks can learn more and use more memory. 0 where `oft_rank` "
            "gives the number of blocks."
        ),
        minimum=0,
        maximum=65_536,
        level="basic",
        source="LLaMA-Factory",
    )
    oft_rank: int = option(
        0,
        unset="the block size decides",
        label="OFT blocks",
        help="Number of blocks for each weight, instead of their size. 0 where `oft_block_size` gives their size.",
        minimum=0,
        maximum=65_536,
        source="LLaMA-Factory",
    )
    module_dropout: float = option(
        0.0,
        label="OFT dropout",
        help="Share of the blocks that are left unrotated in each training step.",
        minimum=0,
        below=1,
        source="LLaMA-Factory",
    )
    oft_target: Names = option(
        ("all",),
        label="Target modules",
        help="Names of the linear layers that get an adapter, or `all` for every one except the output head.",
        level="basic",
        source="LLaMA-Factory",
    )


def oft_tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's OFT options ask for."""
    options = config.options(OFTOptions)
    return Tuner(
        "OFT",
        {
            "r": options.oft_rank,
            "oft_block_size": options.oft_block_size,
            "module_dropout": options.module_dropout,
        },
        target_key="oft_target",
        targets=options.oft_target,
    )


def oft_check_shapes(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check that the blocks divide the inputs of every target."""
    options = config.options(OFTOptions)
    key = "oft_rank" if options.oft_rank else "oft_block_size"
    return check_divides(key, config.get(key), shapes, options.oft_target) if config.get(key) else None


def oft_trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the angles of the rotations: in (b - 1) / 2 of a target with blocks of b inputs (OFT, arXiv 2306.07280)."""
    options = config.options(OFTOptions)
    inputs = [shape[1] for shape in targeted(shapes, options.oft_target, experts=False).values()]
    sizes = [size // options.oft_rank if options.oft_rank else options.oft_block_size for size in inputs]
    return sum(size * (block - 1) // 2 for size, block in zip(inputs, sizes, strict=True))


OFT_RULES = (
    Rule(
        ("oft_rank", "oft_block_size"),
        lambda c: c.method.finetuning_type == "oft" and bool(c.get("oft_rank")) == bool(c.get("oft_block_size")),
        "The number of blocks times their size is the number of a weight's inputs, so one of `oft_rank` and "
        "`oft_block_size` decides the other. Expected one of them above 0, and the other 0.",
        (
            Fix(f"Use blocks of {BLOCK_SIZE}", {"oft_block_size": BLOCK_SIZE, "oft_rank": 0}),
            Fix("Use 8 blocks", {"oft_block_size": 0, "oft_rank": 8}),
        ),
    ),
)


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


OFT = MethodDeclaration(
    name="oft",
    label="oft (rotations)",
    summary="Rotates the inputs of the frozen weights, which keeps their lengths and angles. Often steadier than LoRA.",
    paper="arXiv 2306.07280",
    implementation="llf_core.methods.peft_tuner:PeftTuner",
    options=OFTOptions,
    rules=OFT_RULES,
    frozen_base=True,
    adapter=True,
    tuner=oft_tuner,
    check_shapes=oft_check_shapes,
    trained_parameters=oft_trained_parameters,
)


class BOFTOptions(Section):
    """Options of BOFT adapters."""

    boft_block_size: int = option(
        4,
        label="BOFT block size",
        help="Inputs that are rotated together. Larger blocks can learn more and use more memory.",
        minimum=1,
        maximum=65_536,
        level="basic",
    )
    boft_n_butterfly_factor: int = option(
        1,
        label="Butterfly factors",
        help="Number of rotations that follow each other. More than 1 needs an NVIDIA GPU, PEFT's extension and nvcc.",
        minimum=1,
        maximum=16,
    )
    boft_dropout: float = option(
        0.0,
        label="BOFT dropout",
        help="Share of the blocks that are left unrotated in each training step.",
        minimum=0,
        below=1,
    )
    boft_target: Names = option(
        ("all",),
        label="Target modules",
        help="Names of the linear layers that get an adapter, or `all` for every one except the output head.",
        level="basic",
    )


def boft_tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's BOFT options ask for."""
    options = config.options(BOFTOptions)
    names = ("boft_block_size", "boft_n_butterfly_factor", "boft_dropout")
    given = {name: getattr(options, name) for name in names}
    return Tuner("BOFT", given, target_key="boft_target", targets=options.boft_target)


def boft_check_shapes(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check that the blocks divide the inputs of every target."""
    options = config.options(BOFTOptions)
    return check_divides("boft_block_size", options.boft_block_size, shapes, options.boft_target)


def boft_trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the blocks, in * b for each factor of a target (arXiv 2311.06243), and a scale for each output, as PEFT."""
    options = config.options(BOFTOptions)
    each = options.boft_block_size * options.boft_n_butterfly_factor
    return sum(out + inputs * each for out, inputs in targeted(shapes, options.boft_target, experts=False).values())


BOFT_RULES = (
    Rule(
        ("boft_n_butterfly_factor", "use_cpu"),
        lambda c: (
            c.method.finetuning_type == "boft" and c.get("boft_n_butterfly_factor") > 1 and bool(c.training.use_cpu)
        ),
        "Several butterfly factors need PEFT's extension for NVIDIA GPUs, but `use_cpu` is true. Expected 1.",
        (Fix("Set to 1", {"boft_n_butterfly_factor": 1}),),
    ),
)

BOFT = MethodDeclaration(
    name="boft",
    label="boft (rotations and scales)",
    summary="As OFT, with small blocks and a scale for each output. Few parameters; slower than OFT on wide models.",
    paper="arXiv 2311.06243",
    implementation="llf_core.methods.peft_tuner:PeftTuner",
    options=BOFTOptions,
    rules=BOFT_RULES,
    frozen_base=True,
    adapter=True,
    tuner=boft_tuner,
    check_shapes=boft_check_shapes,
    trained_parameters=boft_trained_parameters,
)
