"""Rules about adapters that a run continues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.problem import Fix
from llf_core.config.registry import method_of, stage_of
from llf_core.config.rule import Rule
from llf_core.config.rules.conditions import packs_examples

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues


def _wants_several(config: ConfigValues) -> bool:
    adapters = config.get("adapter_name_or_path") or ()
    return bool(config.get("quantization_bit")) and (
        len(adapters) > 1 or bool(adapters and config.get("create_new_adapter"))
    )


def _empty_target(config: ConfigValues) -> str:
    """The key of the target modules if it names none, since PEFT refuses an adapter on no module; else empty."""
    method = method_of(config)
    tuner = None if method.tuner is None else method.tuner(config)
    return tuner.target_key if tuner is not None and tuner.targets == () else ""


ADAPTERS = (
    Rule(
        ("finetuning_type",),
        lambda c: bool(_empty_target(c)),
        lambda c: f"`{_empty_target(c)}` names no module for the adapter. Expected `all`, or names of modules.",
        lambda c: (Fix("Use all", {_empty_target(c): "all"}),),
    ),
    Rule(
        ("peft_type",),
        lambda c: c.method.finetuning_type == "peft" and str(c.get("peft_type")).upper() == "LILY",
        "LILY mixes its matrices by the mean of its router over all tokens of a batch, padding too: the loss of an "
        "example depends on the other examples of its micro-batch and on its own later tokens, and a reply that is "
        "computed token by token gets another mixture.",
        (Fix("Use LoRA", {"finetuning_type": "lora", "peft_type": None}),),
        severity="warning",
    ),
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
        ("adapter_folder", "adapter_name_or_path"),
        lambda config: bool(config.model.adapter_folder) and not config.model.adapter_name_or_path,
        "`adapter_folder` is a subfolder of the adapters in `adapter_name_or_path`, which is not set: it has no "
        "effect.",
        (Fix("Remove it", {"adapter_folder": None}),),
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
    Rule(
        ("gradient_checkpointing", "finetuning_type"),
        lambda c: bool(c.training.gradient_checkpointing) and method_of(c).trains_cache(c),
        lambda c: (
            f"`finetuning_type: {c.method.finetuning_type}` trains keys and values, without which gradient "
            "checkpointing computes the layers again. Expected one of the two."
        ),
        (Fix("Turn it off", {"gradient_checkpointing": False}),),
    ),
    Rule(
        ("packing", "finetuning_type"),
        lambda c: packs_examples(c) and method_of(c).prompts(c),
        lambda c: (
            f"`finetuning_type: {c.method.finetuning_type}` trains vectors before each example, and none can be put "
            "between those of a packed row."
        ),
        (Fix("Do not pack", {"packing": False}),),
    ),
    Rule(
        ("adapter_name_or_path", "create_new_adapter", "finetuning_type"),
        lambda c: (
            method_of(c).prompts(c)
            and len(c.model.adapter_name_or_path or ()) > (0 if c.method.create_new_adapter else 1)
        ),
        lambda c: (
            "Adapters that are merged before training are in the result only where it can be merged too, which the "
            f"vectors of `finetuning_type: {c.method.finetuning_type}` cannot be. Expected one adapter to continue."
        ),
        (Fix("Use LoRA", {"finetuning_type": "lora"}),),
    ),
    Rule(
        ("shift_attn", "finetuning_type"),
        lambda c: bool(c.get("shift_attn")) and method_of(c).prompts(c),
        lambda c: (
            f"`finetuning_type: {c.method.finetuning_type}` trains vectors before each example, which shifted "
            "attention would count among its groups."
        ),
        (Fix("Turn it off", {"shift_attn": False}), Fix("Use LoRA", {"finetuning_type": "lora"})),
    ),
    Rule(
        ("stage", "finetuning_type"),
        lambda c: method_of(c).prompts(c) and stage_of(c).data_kind not in {"answers", "texts"},
        lambda c: (
            f"`finetuning_type: {c.method.finetuning_type}` trains vectors before each example, which stage "
            f"{c.stage.stage} does not have. Expected a stage that learns answers or texts, such as sft."
        ),
        (Fix("Use LoRA", {"finetuning_type": "lora"}), Fix("Use stage sft", {"stage": "sft"})),
    ),
    Rule(
        ("additional_target", "finetuning_type"),
        lambda c: bool(c.method.additional_target) and method_of(c).prompts(c),
        lambda c: (
            f"PEFT trains no module whole beside `finetuning_type: {c.method.finetuning_type}`. Expected no "
            "`additional_target`."
        ),
        (Fix("Remove it", {"additional_target": None}), Fix("Use LoRA", {"finetuning_type": "lora"})),
    ),
)
