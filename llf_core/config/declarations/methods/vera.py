"""VeRA (arXiv 2310.11454): LoRA whose matrices are random, frozen and shared by all layers; two vectors are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration, Tuner
from llf_core.config.option import Names, Section, option
from llf_core.config.weight_shapes import targeted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues


class VeRAOptions(Section):
    """Options of VeRA adapters."""

    vera_rank: int = option(
        256,
        label="VeRA rank",
        help="Rank of the shared random matrices. High ranks cost little, since only vectors are trained.",
        minimum=1,
        maximum=65_536,
        level="basic",
    )
    vera_dropout: float = option(
        0.0,
        label="VeRA dropout",
        help="Dropout probability on the adapter's inputs.",
        minimum=0,
        below=1,
    )
    vera_target: Names = option(
        ("all",),
        label="Target modules",
        help="Names of the linear layers that get an adapter, or `all` for every one except the output head.",
        level="basic",
    )


def tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's VeRA options ask for, saved with its random matrices."""
    options = config.options(VeRAOptions)
    given = {"r": options.vera_rank, "vera_dropout": options.vera_dropout, "save_projection": True}
    return Tuner("VERA", given, target_key="vera_target", targets=options.vera_target)


def trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the two vectors of each target: `rank` and `out` numbers (VeRA, arXiv 2310.11454, section 3)."""
    options = config.options(VeRAOptions)
    return sum(options.vera_rank + out for out, _ in targeted(shapes, options.vera_target, experts=False).values())


VERA = MethodDeclaration(
    name="vera",
    label="vera (two vectors a layer)",
    summary="LoRA with shared random matrices: about a tenth of its trained parameters, at a higher learning rate.",
    paper="arXiv 2310.11454",
    implementation="llf_core.methods.peft_tuner:PeftTuner",
    options=VeRAOptions,
    frozen_base=True,
    adapter=True,
    tuner=tuner,
    trained_parameters=trained_parameters,
)
