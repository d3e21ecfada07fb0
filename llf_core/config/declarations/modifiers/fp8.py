"""FP8 training: matrix products of linear layers in 8-bit floats, by torchao."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from llf_core.config import quantizers
from llf_core.config.declaration import ModifierDeclaration
from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues


class FP8Options(Section):
    """Options of FP8 training."""

    fp8: bool = option(
        False,
        label="FP8 training",
        help=(
            "Computes the products of linear layers in 8-bit floats, forward and backward. For large models on NVIDIA "
            "GPUs from compute capability 8.9 (Ada, Hopper), with `torch_compile`."
        ),
        source="LLaMA-Factory",
    )
    fp8_backend: Literal["auto", "torchao"] = option(
        "auto",
        label="FP8 backend",
        help="Library of FP8 training. `auto` is torchao.",
        choices=("auto", "torchao"),
        source="LLaMA-Factory",
    )


def _on(config: ConfigValues) -> bool:
    return bool(config.get("fp8"))


WITHOUT = Fix("Train without FP8", {"fp8": False})
FP8 = ModifierDeclaration(
    name="fp8",
    label="FP8 training (8-bit products)",
    summary="Products of linear layers in 8-bit floats. For speed on new NVIDIA GPUs.",
    paper="arXiv 2209.05433",
    implementation="llf_core.modifiers.fp8:FP8",
    options=FP8Options,
    rules=(
        Rule(
            ("fp8", "use_cpu"),
            lambda c: _on(c) and (c.training.use_cpu or not quantizers.has_cuda()),
            lambda c: (
                "FP8 training needs an NVIDIA GPU of compute capability 8.9 or higher, and "
                f"{'`use_cpu` is true' if c.training.use_cpu else 'this machine has no NVIDIA GPU'}. Expected fp8: "
                "false."
            ),
            (WITHOUT,),
        ),
        Rule(
            ("fp8",),
            lambda c: _on(c) and find_spec("torch") is not None and find_spec("torchao") is None,
            "FP8 training needs torchao, which is not installed. Run: pip install torchao.",
            (WITHOUT,),
        ),
        Rule(
            ("fp8", "quantization_bit"),
            lambda c: _on(c) and c.model.quantization_bit is not None,
            lambda c: (
                f"Layers quantized to {c.model.quantization_bit} bits are computed by the quantizer, so `fp8` would "
                "change nothing. Expected one of the two."
            ),
            (WITHOUT, Fix("Do not quantize", {"quantization_bit": None})),
        ),
        Rule(
            ("fp8", "torch_compile"),
            lambda c: _on(c) and not c.training.torch_compile,
            "Without `torch_compile`, scaling and rounding to FP8 are operations of their own and usually cost more "
            "time than the products save.",
            (Fix("Compile", {"torch_compile": True}),),
            severity="note",
        ),
        Rule(
            ("fp8_backend", "fp8"),
            lambda c: not _on(c) and c.get("fp8_backend") != "auto",
            "`fp8_backend` has no effect without `fp8`.",
            (Fix("Remove it", {"fp8_backend": "auto"}), Fix("Train in FP8", {"fp8": True})),
            severity="note",
        ),
    ),
    switch="fp8",
)
