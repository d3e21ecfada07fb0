"""Tiny models of many architectures, two layers each, with weights that matter and nothing loaded from anywhere."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

VOCAB = 97
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MOE = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DELTA_NET = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}
MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
}
# Windows are shorter than the documents of the tests.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": 5, "head_dim": 16}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3-moe": ("qwen3_moe", {**MOE, "head_dim": 16}),
    "mixtral": ("mixtral", {**MOE, "sliding_window": 5}),
    "gemma": ("gemma", {"head_dim": 16}),
    "gemma2": (
        "gemma2",
        {"head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 2.0},
    ),
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 16,
            "sliding_window": 5,
            "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "phi": ("phi", {"partial_rotary_factor": 0.5, "num_key_value_heads": 4, "resid_pdrop": 0.0}),
    "phi3": ("phi3", {"sliding_window": 5}),
    "gpt2": ("gpt2", {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "n_inner": 96}),
    "gpt-neox": ("gpt_neox", {"rotary_pct": 0.25}),
    "olmo2": ("olmo2", {}),
    "granite": (
        "granite",
        {"embedding_multiplier": 6.0, "logits_scaling": 4.0, "residual_multiplier": 0.3, "attention_multiplier": 0.1},
    ),
    "cohere": ("cohere", {}),
    "starcoder2": ("starcoder2", {"residual_dropout": 0.0, "embedding_dropout": 0.0, "sliding_window": 5}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0], "pad_token_id": 0}),
    "opt": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64, "dropout": 0.0}),
    "falcon-alibi": ("falcon", {"alibi": True}),
    "falcon": ("falcon", {"alibi": False}),
    "bloom": ("bloom", {"n_head": 4}),
    "mpt": ("mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2}),
    "mamba": ("mamba", {}),
    "recurrent-gemma": ("recurrent_gemma", {"num_hidden_layers": 3, "attention_window_size": 16, "lru_width": 64}),
    "qwen3-next": (
        "qwen3_next",
        {
            **MOE,
            "head_dim": 16,
            "shared_expert_intermediate_size": 32,
            **DELTA_NET,
        },
    ),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "lfm2-moe": ("lfm2_moe", {**MOE, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1}),
    "qwen3.5": ("qwen3_5_text", {"head_dim": 16, **DELTA_NET}),
    "qwen3.5-moe": ("qwen3_5_moe_text", {**MOE, "head_dim": 16, "shared_expert_intermediate_size": 32, **DELTA_NET}),
    "olmo-hybrid": ("olmo_hybrid", {**DELTA_NET, "linear_num_key_heads": 4}),
    "minimax": (
        "minimax",
        {**MOE, "head_dim": 16, "block_size": 8, "layer_types": ["linear_attention", "full_attention"]},
    ),
    "bamba": ("bamba", {**MAMBA, "attn_layer_indices": [1]}),
    "falcon-h1": ("falcon_h1", {**MAMBA, "mamba_d_ssm": 128}),
    "granite-hybrid": (
        "granitemoehybrid",
        {
            **MAMBA,
            **MOE,
            "shared_intermediate_size": 32,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "nemotron-h": (
        "nemotron_h",
        {
            **MOE,
            "mamba_num_heads": 8,
            "mamba_head_dim": 16,
            "ssm_state_size": 8,
            "n_groups": 1,
            "head_dim": 16,
            "chunk_size": 8,
            "layer_types": ["linear_attention", "full_attention", "moe"],
            "num_hidden_layers": 3,
            "n_routed_experts": 4,
            "moe_shared_expert_intermediate_size": 32,
        },
    ),
    "zamba2": (
        "zamba2",
        {
            "num_hidden_layers": 3,
            "layers_block_type": ["mamba", "hybrid", "mamba"],
            "mamba_d_state": 8,
            "n_mamba_heads": 8,
            "mamba_headdim": 16,
            "mamba_ngroups": 1,
            "chunk_size": 8,
            "num_mem_blocks": 1,
            "attention_head_dim": 32,
            "attention_hidden_size": 128,
            "num_key_value_heads": 4,
        },
    ),
    "jamba": (
        "jamba",
        {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 4,
            "expert_layer_offset": 3,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "mamba_d_state": 8,
            "use_mamba_kernels": False,
        },
    ),
    "llama4": (
        "llama4_text",
        {
            **MOE,
            "head_dim": 16,
            "intermediate_size_mlp": 96,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": 5,
            "no_rope_layers": [1, 0],
            "floor_scale": 4,
            "layer_types": ["chunked_attention", "full_attention"],
        },
    ),
    "mamba2": ("mamba2", {"num_heads": 8, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8}),
    "gpt-oss": ("gpt_oss", {**MOE, "head_dim": 16, "sliding_window": 5}),
}


# What cannot be flattened, and a part of the reason that is given.
REFUSED = {
    "falcon-alibi": "ALiBi",
    "falcon": "cannot be replaced",
    "bloom": "cannot be replaced",
    "mpt": "cannot be replaced",
    "mamba": "recurrent layers",
    "mamba2": "recurrent layers",
}


def tiny(name: str, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> Any:
    """A model by its name in `CONFIGS`. Its weights are larger than a fresh model's, so that each of them counts."""
    kind, own = CONFIGS[name]
    config = CONFIG_MAPPING[kind](**{**COMMON, **own, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if parameter.ndim == 1:  # norms, biases
                    parameter.add_(torch.randn_like(parameter) * 0.2)
                elif "embed" in key or "wte" in key:
                    parameter.copy_(torch.randn_like(parameter) * 0.5)
                else:
                    parameter.copy_(torch.randn_like(parameter) * 1.5 * parameter.shape[-1] ** -0.5)
    return model.to(dtype)
