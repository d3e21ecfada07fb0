"""Architectures and method options that LLaMA-Factory and LLF are both asked for: plain data for two interpreters."""

from __future__ import annotations

import re
from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip
TEXT = {"model_type": "llama"} | SIZES
VISION = {
    "model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "projection_dim": 16,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": TEXT,
    "qwen2": SIZES | {"tie_word_embeddings": True},
    "phi": SIZES,
    "phi3": SIZES,
    "gpt_neox": SIZES,
    "gemma2": SIZES | {"head_dim": 8, "tie_word_embeddings": True},
    "mixtral": SIZES | EXPERTS,
    "llava": {"text_config": TEXT, "vision_config": VISION, "image_token_index": 95, "tie_word_embeddings": False},
}
"""Values of `config.json` by model type: four layers, so that some stay frozen."""
LAYER = re.compile(r"(.*?\.)(\d+)(\..+)")
NAMED = {"gpt_neox": "query_key_value,dense", "phi": "q_proj,dense", "phi3": "qkv_proj,o_proj"}
EMBEDDING = {"gpt_neox": "embed_in"}
ATTENTION = {"gpt_neox": "attention"}


def cases(architecture: str) -> dict[str, dict[str, Any]]:
    """Keys that both read, by the name of the case.

    Args:
        architecture: a key of `ARCHITECTURES`.
    """
    named = NAMED.get(architecture, "q_proj,v_proj")
    embedding = EMBEDDING.get(architecture, "embed_tokens")
    attention = ATTENTION.get(architecture, "self_attn")
    freeze: dict[str, Any] = {"finetuning_type": "freeze"}
    return {
        "full": {"finetuning_type": "full"},
        "freeze the last layer": freeze | {"freeze_trainable_layers": 1},
        "freeze, first three layers": freeze | {"freeze_trainable_layers": -3},
        "freeze, named modules": freeze | {"freeze_trainable_modules": f"{attention},mlp"},
        "freeze, extra modules": freeze | {"freeze_extra_modules": embedding},
        "freeze, LLaMA Pro": freeze | {"freeze_trainable_layers": 2, "use_llama_pro": True},
        "lora": {"finetuning_type": "lora"},
        "lora, named targets": {"finetuning_type": "lora", "lora_target": named, "lora_rank": 4},
        "lora, DoRA": {"finetuning_type": "lora", "lora_target": named, "use_dora": True},
        "lora, PiSSA": {"finetuning_type": "lora", "lora_target": named, "pissa_init": True, "pissa_iter": -1},
        "lora, additional target": {
            "finetuning_type": "lora", "lora_target": named, "additional_target": embedding,
        },
        "oft": {"finetuning_type": "oft", "oft_block_size": 8},
        "oft, number of blocks": {"finetuning_type": "oft", "oft_block_size": 0, "oft_rank": 4, "oft_target": named},
    }  # fmt: skip


def trained_names(model: Any) -> list[str]:
    """Sorted paths of what is trained: modules with an adapter, and parameters that are trained whole.

    Args:
        model: a model of transformers, or PEFT's around one.

    Returns:
        One entry for all layers: `model.layers.{2,3}.mlp.up_proj.weight`.
    """
    found: dict[str, set[str]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        path = name.removeprefix("base_model.model.")
        for mark in (".lora_", ".oft_R."):
            path = path.partition(mark)[0]
        path = path.replace(".modules_to_save.default", "").replace(".base_layer", "")
        before, layer, after = LAYER.match(path).groups() if LAYER.match(path) else (path, "", "")
        found.setdefault(f"{before}{{}}{after}" if layer else path, set()).add(layer)
    return sorted(
        path.replace("{}", f"{{{','.join(sorted(layers, key=int))}}}") if layers != {""} else path
        for path, layers in found.items()
    )


def trained_count(model: Any) -> int:
    """Number of trained parameters, a shared one counted once."""
    return sum(one.numel() for one in model.parameters() if one.requires_grad)
