"""Rules about number formats and quantization."""

from __future__ import annotations

from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.config.rules.conditions import weights_frozen

PRECISION = (
    Rule(
        ("fp16", "bf16", "pure_bf16"),
        lambda c: c.training.fp16 and (c.training.bf16 or c.training.pure_bf16),
        "Both fp16 and bf16 are asked for. Expected one of them.",
        (
            Fix("Compute in bf16", {"fp16": False}),
            Fix("Compute in fp16", {"bf16": False, "pure_bf16": False}),
        ),
    ),
    Rule(
        ("bf16", "pure_bf16"),
        lambda c: c.training.bf16 and c.training.pure_bf16,
        "Pure bf16 keeps the weights in bfloat16 too, so `bf16` changes nothing.",
        (Fix("Keep the weights exact", {"pure_bf16": False}), Fix("Take out bf16", {"bf16": False})),
        severity="note",
    ),
    Rule(
        ("fp16", "use_cpu"),
        lambda c: c.training.fp16 and c.training.use_cpu,
        "fp16 needs a GPU, but `use_cpu` is true. Expected bf16, or neither, so that the faster one is found.",
        (Fix("Find the faster one", {"fp16": False}),),
    ),
    Rule(
        ("tf32", "use_cpu"),
        lambda c: bool(c.training.tf32) and c.training.use_cpu,
        "TF32 is a number format of NVIDIA GPUs, but `use_cpu` is true.",
        (Fix("Take out tf32", {"tf32": None}),),
    ),
    Rule(
        ("quantization_bit", "finetuning_type"),
        lambda c: c.model.quantization_bit is not None and not weights_frozen(c),
        lambda c: (
            f"The weights are kept in {c.model.quantization_bit} bits and cannot be trained themselves, but "
            f"`finetuning_type` is {c.method.finetuning_type}. Expected lora."
        ),
        (
            Fix("Train with LoRA", {"finetuning_type": "lora"}),
            Fix("Do not quantize", {"quantization_bit": None}),
        ),
    ),
    Rule(
        ("quantization_type", "double_quantization", "quantization_bit"),
        lambda c: (
            c.model.quantization_bit != 4  # noqa: PLR2004 - bits
            and (c.model.quantization_type != "nf4" or not c.model.double_quantization)
        ),
        "The 4-bit type and double quantization have an effect with 4 bits only.",
        (
            Fix("Take them out", {"quantization_type": None, "double_quantization": None}),
            Fix("Quantize to 4 bits", {"quantization_bit": 4, "finetuning_type": "lora"}),
        ),
        severity="note",
    ),
)
