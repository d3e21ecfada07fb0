"""Rules about adapters that a run continues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.problem import Fix
from llf_core.config.registry import method_of
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues


def _wants_several(config: ConfigValues) -> bool:
    adapters = config.get("adapter_name_or_path") or ()
    return bool(config.get("quantization_bit")) and (
        len(adapters) > 1 or bool(adapters and config.get("create_new_adapter"))
    )


ADAPTERS = (
    Rule(
        ("adapter_name_or_path", "quantization_bit", "create_new_adapter"),
        _wants_several,
        "An adapter cannot be merged into a quantized model without loss, so with quantization_bit only one adapter "
        "can be given, which training continues.",
        (Fix("Do not quantize", {"quantization_bit": None}),),
    ),
    Rule(
        ("create_new_adapter", "adapter_name_or_path"),
        lambda config: bool(config.get("create_new_adapter")) and not config.get("adapter_name_or_path"),
        "`create_new_adapter` applies to `adapter_name_or_path`, which is not set: a new adapter is trained anyway.",
        (Fix("Remove it", {"create_new_adapter": None}),),
        severity="note",
    ),
    Rule(
        ("adapter_name_or_path", "finetuning_type"),
        lambda config: bool(config.get("adapter_name_or_path")) and not method_of(config).adapter,
        lambda config: (
            f"An adapter (adapter_name_or_path) cannot be continued with finetuning_type "
            f"{config.get('finetuning_type')}: it trains the model's own weights."
        ),
        (
            Fix("Train with LoRA", {"finetuning_type": "lora"}),
            Fix("Remove the adapter", {"adapter_name_or_path": None}),
        ),
    ),
)
