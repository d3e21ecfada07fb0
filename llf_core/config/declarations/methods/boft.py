"""BOFT (arXiv 2311.06243): OFT whose rotation is a product of sparse ones, arranged as a butterfly."""

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


def tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's BOFT options ask for."""
    options = config.options(BOFTOptions)
    names = ("boft_block_size", "boft_n_butterfly_factor", "boft_dropout")
    given = {name: getattr(options, name) for name in names}
    return Tuner("BOFT", given, target_key="boft_target", targets=options.boft_target)


def check_shapes(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check that the blocks divide the inputs of every target."""
    options = config.options(BOFTOptions)
    return check_divides("boft_block_size", options.boft_block_size, shapes, options.boft_target)


def trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the blocks, in * b for each factor of a target (arXiv 2311.06243), and a scale for each output, as PEFT."""
    options = config.options(BOFTOptions)
    each = options.boft_block_size * options.boft_n_butterfly_factor
    return sum(out + inputs * each for out, inputs in targeted(shapes, options.boft_target, experts=False).values())


RULES = (
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
    rules=RULES,
    frozen_base=True,
    adapter=True,
    tuner=tuner,
    check_shapes=check_shapes,
    trained_parameters=trained_parameters,
)
