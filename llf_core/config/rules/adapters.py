"""Rules about adapters that a run continues."""

from __future__ import annotations

from llf_core.config.problem import Fix
from llf_core.config.registry import method_of
from llf_core.config.rule import Rule

ADAPTERS = (
    Rule(
        ("adapter_name_or_path", "finetuning_type"),
        lambda config: bool(config.get("adapter_name_or_path")) and not method_of(config).adapter,
        lambda config: (
            f"An adapter (adapter_name_or_path) cannot be continued with finetuning_type "
            f"{config.get('finetuning_type')}: it trains the model's own weights."
        ),
        (
            Fix("Train with LoRA", {"finetuning_type": "lora"}),
            Fix("Leave the adapter out", {"adapter_name_or_path": None}),
        ),
    ),
)
