"""OFT (arXiv 2306.07280): trained rotations of the inputs of each weight, in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration, Tuner
from llf_core.config.declarations.methods.orthogonal import check_divides
from llf_core.config.option import Names, Section, option
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.config.weight_shapes import targeted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.problem import Problem
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


def tuner(config: ConfigValues) -> Tuner:
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


def check_shapes(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check that the blocks divide the inputs of every target."""
    options = config.options(OFTOptions)
    key = "oft_rank" if options.oft_rank else "oft_block_size"
    return check_divides(key, config.get(key), shapes, options.oft_target) if config.get(key) else None


def trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the angles of the rotations: in (b - 1) / 2 of a target with blocks of b inputs (OFT, arXiv 2306.07280)."""
    options = config.options(OFTOptions)
    inputs = [shape[1] for shape in targeted(shapes, options.oft_target, experts=False).values()]
    sizes = [size // options.oft_rank if options.oft_rank else options.oft_block_size for size in inputs]
    return sum(size * (block - 1) // 2 for size, block in zip(inputs, sizes, strict=True))


RULES = (
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
OFT = MethodDeclaration(
    name="oft",
    label="oft (rotations)",
    summary="Rotates the inputs of the frozen weights, which keeps their lengths and angles. Often steadier than LoRA.",
    paper="arXiv 2306.07280",
    implementation="llf_core.methods.peft_tuner:PeftTuner",
    options=OFTOptions,
    rules=RULES,
    frozen_base=True,
    adapter=True,
    tuner=tuner,
    check_shapes=check_shapes,
    trained_parameters=trained_parameters,
)
