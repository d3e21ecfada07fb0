"""Models whose files hold quantized weights: what cannot be trained of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.problem import Fix, Problem
from llf_core.config.registry import method_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

KEY = "quantization_config"
PACKED = frozenset(
    {
        "aqlm", "auto-round", "awq", "bitnet", "bitsandbytes", "eetq", "gptq", "higgs", "hqq", "quanto", "quark",
        "spqr", "vptq",
    }
)  # fmt: skip
"""Values of `quant_method` whose weights stay packed integers in memory; transformers unpacks some others."""


def is_quantized(settings: Mapping[str, object]) -> bool:
    """Whether a model's files hold quantized weights, whose shapes in the headers are those of packed integers.

    Args:
        settings: the model's `config.json`.
    """
    return bool(settings.get(KEY))


def check_stored_quantization(config: ConfigValues, settings: Mapping[str, object]) -> Problem | None:
    """Check a config against the quantization of a model's files.

    A method that trains packed integers would end with a library's error after the model is loaded, and transformers
    keeps the quantization of the files whatever `quantization_bit` says.

    Args:
        config: selects the method.
        settings: the model's `config.json`.

    Returns:
        An error if the method trains packed weights, with LoRA as its fix; a note if `quantization_bit` has no effect;
        None otherwise.

    Raises:
        PluginError: two packages declare the same method.
    """
    stored = settings.get(KEY)
    kind = stored.get("quant_method") if isinstance(stored, dict) else None
    if kind not in PACKED:
        return None
    if not method_of(config).frozen_base:
        method = config.method.finetuning_type
        message = (
            f"The files of the model hold weights quantized by {kind}, which `finetuning_type: {method}` cannot train. "
            "Expected lora, or the unquantized model."
        )
        keys = ("finetuning_type", "model_name_or_path")
        fixes = (Fix("Train with LoRA", {"finetuning_type": "lora", "quantization_bit": None}),)
        return Problem("violation", "finetuning_type", method, message, fixes, keys=keys)
    bits = config.model.quantization_bit
    if bits is None:
        return None
    message = f"`quantization_bit` ({bits}) has no effect: the files of the model are already quantized by {kind}."
    keys = ("quantization_bit", "model_name_or_path")
    fixes = (Fix("Remove it", {"quantization_bit": None}),)
    return Problem("violation", "quantization_bit", bits, message, fixes, "note", keys=keys)
