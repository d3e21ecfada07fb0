"""Muon: momentum made orthogonal, for hidden matrices (arXiv 2502.16982)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.config.declaration import OptimizerDeclaration, OptimizerMemory
from llf_core.config.option import Section, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

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


def memory(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int) -> OptimizerMemory:
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
    memory=memory,
)
