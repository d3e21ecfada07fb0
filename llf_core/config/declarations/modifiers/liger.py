"""Liger's Triton kernels for normalization layers and gated MLPs, on NVIDIA GPUs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from llf_core.config import quantizers
from llf_core.config.declaration import ModifierDeclaration
from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

KEY = "enable_liger_kernel"


class LigerOptions(Section):
    """Options of the modifier."""

    enable_liger_kernel: bool = option(
        False,
        label="Liger kernels",
        help=(
            "Computes normalization layers and gated MLPs with the Triton kernels of the package liger-kernel, on "
            "NVIDIA GPUs. Attention, LoRA layers and the loss stay on LLF's fast path."
        ),
        source="LLaMA-Factory",
    )


def _on(config: ConfigValues) -> bool:
    return bool(config.get(KEY))


def _without_card(config: ConfigValues) -> bool:
    return config.training.use_cpu or not quantizers.has_cuda()


WITHOUT = Fix("Train without them", {KEY: False})
LIGER = ModifierDeclaration(
    name="liger",
    label="Liger kernels",
    summary="Triton kernels of liger-kernel for norms and MLPs. For speed on NVIDIA GPUs.",
    paper="arXiv 2410.10989",
    implementation="llf_core.modifiers.liger:Liger",
    options=LigerOptions,
    rules=(
        Rule(
            (KEY, "use_cpu"),
            lambda c: _on(c) and _without_card(c),
            lambda c: (
                "Liger's kernels need an NVIDIA GPU, and "
                f"{'`use_cpu` is true' if c.training.use_cpu else 'this machine has none'}: the run trains without "
                "them, with LLF's own fast path."
            ),
            (WITHOUT,),
            severity="warning",
        ),
        Rule(
            (KEY,),
            lambda c: _on(c) and not _without_card(c) and find_spec("liger_kernel") is None,
            "Liger's kernels need the package liger-kernel, which is not installed: the run trains without them, with "
            "LLF's own fast path. Run: pip install liger-kernel.",
            (WITHOUT,),
            severity="warning",
        ),
    ),
    switch=KEY,
)
