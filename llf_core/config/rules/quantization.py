"""Rules about quantized weights, made of what the table of quantizers says."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from llf_core.config import quantizers
from llf_core.config.did_you_mean import any_of
from llf_core.config.peft_tuners import supports, tuner
from llf_core.config.problem import Fix
from llf_core.config.quantizers import on_the_fly
from llf_core.config.registry import method_of, quantizer_of
from llf_core.config.rule import Rule
from llf_core.config.rules.conditions import weights_frozen

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

METHOD, BITS = "quantization_method", "quantization_bit"
UNQUANTIZED = Fix("Do not quantize", {BITS: None, METHOD: None})
USUAL_FORMAT = "nf4"
"""Default of `quantization_type`, at which the other quantizers use their usual format."""


def _quantizes(c: ConfigValues) -> bool:
    return c.model.quantization_bit is not None


def _with_bits(c: ConfigValues) -> tuple[Fix, ...]:
    quantizer, bits = quantizer_of(c), c.model.quantization_bit or 0
    nearest = min(quantizer.bits, key=lambda one: (abs(one - bits), one))
    others = [one for one in on_the_fly() if bits in one.bits and not one.missing_packages()]
    return (
        Fix(f"Set to {nearest} bits", {BITS: nearest}),
        *(Fix(f"Use {one.label}", {METHOD: one.name, "quantization_type": None}) for one in others[:1]),
    )


def _not_supported(c: ConfigValues) -> str:
    """PEFT's type of the adapter that cannot be trained over the quantizer's layers; empty if it can."""
    method = method_of(c)
    if not _quantizes(c) or method.tuner is None:
        return ""
    found = tuner(method.tuner(c).peft_type)
    return "" if found is None or supports(found, quantizer_of(c)) else found.name


def _wrong_format(c: ConfigValues) -> bool:
    """Whether `quantization_type` is set to a format that the quantizer does not have in these bits."""
    chosen = c.model.quantization_type
    return chosen != USUAL_FORMAT and (
        not _quantizes(c) or quantizer_of(c).types.get(chosen) != c.model.quantization_bit
    )


def _right_format(c: ConfigValues) -> tuple[Fix, ...]:
    chosen = c.model.quantization_type
    found = [(one, one.types[chosen]) for one in on_the_fly() if chosen in one.types and not one.missing_packages()]
    changes: list[tuple[str, dict[str, object]]] = [
        (f"Use {one.label} in {bits} bits", {METHOD: one.name, BITS: bits}) for one, bits in found[:1]
    ]
    return (Fix("Remove it", {"quantization_type": None}), *(Fix(label, change) for label, change in changes))


QUANTIZATION = (
    Rule(
        (BITS, "finetuning_type"),
        lambda c: _quantizes(c) and not weights_frozen(c),
        lambda c: (
            f"Weights quantized to {c.model.quantization_bit} bits cannot be trained, but "
            f"`finetuning_type` is {c.method.finetuning_type}. Expected lora."
        ),
        (Fix("Train with LoRA", {"finetuning_type": "lora"}), UNQUANTIZED),
    ),
    Rule(
        (METHOD, BITS),
        lambda c: _quantizes(c) and not quantizer_of(c).bits,
        lambda c: (
            f"`quantization_method: {c.model.quantization_method}` is for models whose files {quantizer_of(c).label} "
            f"has quantized, which are loaded without `quantization_bit`. To quantize another model, expected "
            f"{any_of([one.name for one in on_the_fly()])}."
        ),
        (Fix("Load it as stored", {BITS: None}), Fix("Use bitsandbytes", {METHOD: None})),
    ),
    Rule(
        (BITS, METHOD),
        lambda c: _quantizes(c) and bool(quantizer_of(c).bits) and c.model.quantization_bit not in quantizer_of(c).bits,
        lambda c: (
            f"`quantization_bit` is {c.model.quantization_bit}, which {quantizer_of(c).label} does not have. Expected "
            f"{any_of([str(bits) for bits in quantizer_of(c).bits])}."
        ),
        _with_bits,
    ),
    Rule(
        (METHOD, BITS, "use_cpu"),
        lambda c: _quantizes(c) and quantizer_of(c).needs_cuda and (c.training.use_cpu or not quantizers.has_cuda()),
        lambda c: (
            f"{quantizer_of(c).label} needs an NVIDIA GPU, and "
            f"{'`use_cpu` is true' if c.training.use_cpu else 'this machine has none'}. Expected another "
            "`quantization_method`, such as bnb."
        ),
        (Fix("Use bitsandbytes", {METHOD: None}),),
    ),
    Rule(
        (METHOD, BITS),
        lambda c: _quantizes(c) and find_spec("torch") is not None and bool(quantizer_of(c).missing_packages()),
        lambda c: (
            f"Quantizing with {quantizer_of(c).label} needs {quantizer_of(c).missing_packages()[0]}, which is not "
            f"installed. Run: "
            f"{quantizer_of(c).install_command()}."
        ),
        lambda c: (UNQUANTIZED if c.model.quantization_method == "bnb" else Fix("Use bitsandbytes", {METHOD: None}),),
    ),
    Rule(
        (METHOD, BITS, "finetuning_type", "peft_type"),
        lambda c: bool(_not_supported(c)),
        lambda c: (
            f"PEFT's {_not_supported(c)} does not support layers quantized by {quantizer_of(c).label}. Expected an "
            "unquantized model, or finetuning_type: lora."
        ),
        (UNQUANTIZED, Fix("Use LoRA", {"finetuning_type": "lora"})),
    ),
    Rule(
        ("use_dora", METHOD, BITS),
        lambda c: (
            _quantizes(c)
            and c.method.finetuning_type == "lora"
            and bool(c.get("use_dora"))
            and bool(quantizer_of(c).adapters)
        ),
        lambda c: (
            f"DoRA needs the lengths of the weights, which PEFT cannot read from {quantizer_of(c).label}. Expected "
            "use_dora: false, or another `quantization_method`."
        ),
        (Fix("Turn DoRA off", {"use_dora": False}), Fix("Use bitsandbytes", {METHOD: None})),
    ),
    Rule(
        ("quantization_type", METHOD, BITS),
        _wrong_format,
        lambda c: (
            f"`quantization_type: {c.model.quantization_type}` has no effect: "
            + (
                f"{quantizer_of(c).label} does not have it in {c.model.quantization_bit} bits."
                if _quantizes(c)
                else "the model is not quantized."
            )
        ),
        _right_format,
        severity="note",
    ),
    Rule(
        ("double_quantization", METHOD, BITS),
        lambda c: (
            not c.model.double_quantization and (c.model.quantization_method, c.model.quantization_bit) != ("bnb", 4)
        ),
        "`double_quantization` applies to 4 bits of bitsandbytes only.",
        (Fix("Remove it", {"double_quantization": None}),),
        severity="note",
    ),
    Rule(
        (METHOD, BITS),
        lambda c: bool(quantizer_of(c).bits) and c.model.quantization_method != "bnb" and not _quantizes(c),
        lambda c: (
            f"`quantization_method: {c.model.quantization_method}` has no effect without `quantization_bit`. Expected "
            f"{any_of([str(bits) for bits in quantizer_of(c).bits])} bits."
        ),
        lambda c: (
            Fix(f"Quantize to {quantizer_of(c).usual_bits} bits", {BITS: quantizer_of(c).usual_bits}),
            Fix("Remove it", {METHOD: None}),
        ),
        severity="note",
    ),
)
