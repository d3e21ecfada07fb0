"""A tiny config of every causal architecture that transformers knows, made from its config class and a table of sizes.

What a class generates from its sizes (which layers are of which kind, say) is taken from its own defaults, one layer
of each kind, so that a new architecture mostly needs no line here.
"""

from __future__ import annotations

from typing import Any

from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    PretrainedConfig,
)

from tests.core.models import tiny_multimodal

VOCAB = 448
HIDDEN = 64
LAYERS = 2
MOST_LAYERS = 4
SIZES: dict[str, int] = {}
"""Values of config keys that mean the same wherever they occur."""


def _sizes(value: int, names: str) -> None:
    SIZES.update(dict.fromkeys(names.split(), value))


_sizes(VOCAB, "vocab_size vocab_size_per_layer_input unpadded_vocab_size decoder_vocab_size")
_sizes(
    HIDDEN,
    "hidden_size d_model n_embd dim_model word_embed_proj_dim embedding_size input_embedding_size emb_dim lru_width "
    "output_embedding_size embedding_dim attention_hidden_size mamba_d_ssm backbone_hidden_size hidden_size_global "
    "adapter_in_dim adapter_out_dim adapter_input_size out_hidden_size",
)
_sizes(
    96,
    "intermediate_size decoder_ffn_dim encoder_ffn_dim ffn_dim ffn_hidden_size dff dim_ff feed_forward_size d_inner "
    "intermediate_size_mlp dense_intermediate_size n_inner",
)
_sizes(
    32,
    "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size "
    "shared_intermediate_size expert_ffn_hidden_size moe_shared_expert_intermediate_size prompt_mid_dim "
    "index_head_dim router_hidden_size pronunciation_embed_dim shape_embed_dim",
)
_sizes(
    4,
    "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads "
    "num_encoder_attention_heads num_decoder_attention_heads swa_num_attention_heads linear_num_heads "
    "linear_num_value_heads num_experts num_local_experts n_routed_experts moe_num_experts "
    "mamba_n_heads mamba_num_heads attn_layer_period",
)
_sizes(
    2,
    "num_key_value_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads num_experts_per_tok "
    "num_experts_per_token moe_k moe_topk n_groups n_mamba_heads num_query_groups o_groups",
)
_sizes(
    LAYERS,
    "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers "
    "num_decoder_layers n_input_layers n_recurrent_layers n_output_layers num_layers_per_stack num_blocks",
)
_sizes(
    16,
    "index_n_heads "
    "head_dim qk_nope_head_dim v_head_dim q_lora_rank kv_lora_rank linear_key_head_dim linear_value_head_dim "
    "mamba_d_state state_size ssm_state_size dim_head kv_channels linear_head_dim swa_head_dim d_head d_rel "
    "mamba_head_dim mamba_d_head mamba_headdim attention_head_size hidden_size_per_layer_input o_lora_rank "
    "time_step_rank mamba_dt_rank laurel_rank adapter_rank gated_norm_rank loop_gate_rank hc_lowrank "
    "attention_head_dim query_pre_attn_scalar",
)
_sizes(
    8,
    "qk_rope_head_dim rotary_dim index_topk sliding_window sliding_window_size chunk_size mamba_chunk_size "
    "attention_window_size window_size local_attention attention_chunk_size",
)
_sizes(1, "n_group num_expert_group topk_group")
_sizes(256, "max_position_embeddings n_positions n_ctx max_seq_len model_max_length context_length")
LISTS = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types", "indexer_types")
OWN: dict[str, dict[str, Any]] = {
    "blt": {"encoder_hash_byte_group_vocab": 64, "encoder_hash_byte_group_size": [3, 4]},
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 96},
    },
    "deepseek_v2": {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "deepseek_v4": {"partial_rotary_factor": 0.5},
    "dory": {
        "num_hidden_layers": 3,
        "n_input_layers": 1,
        "n_recurrent_layers": 1,
        "n_output_layers": 1,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    },
    "dots1": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "moe_intermediate_size": 32,
    },
    "dots3_note_text": {"layer_types": ["indexed_attention", "indexed_attention"]},
    "falcon_h1": {"mamba_n_heads": 4},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "intermediate_size": [96] * 4,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"mamba_n_heads": 8, "layer_types": ["mamba", "attention"]},
    "hrm_text": {"num_hidden_layers": 2, "num_layers_per_stack": None},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"zero_expert_num": 2, "moe_topk": 2},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "ministral": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
        "ple_embed_dim": 16,
        "ngram_vocab_size_base": 64,
        "split_ngram_parts": 1,
    },
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xlstm": {"qk_dim_factor": 1.0, "chunk_size": 16, "hidden_size": 64, "embedding_dim": 64, "num_heads": 4},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 6,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "layers_block_type": None,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "mamba_d_state": 16,
        "mamba_headdim": 16,
        "n_mamba_heads": 8,
        "mamba_ngroups": 1,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "num_mem_blocks": 1,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""What single architectures need besides."""
PARTS: dict[str, dict[str, Any]] = {
    "dots3_note": {
        "text_config": OWN["dots3_note_text"],
        "audio_config": {"downsample_hidden_size": 32, "feature_size": 16},
    },
    "emu3": {
        "vocabulary_map": {"<image>": 3, "<|extra_200|>": 4}
        | {f"<|visual token {code:06}|>": 440 + code for code in range(8)},
        "vq_config": {"base_channels": 64, "channel_multiplier": [1] * 4, "num_res_blocks": 1, "codebook_size": 8},
    },
    "gemma3n": {
        "text_config": OWN["gemma3n_text"] | {"vocab_size": VOCAB + 256},
        "vision_config": {
            "architecture": "mobilenetv5_300m_enc",
            "model_args": {"channel_multiplier": 0.02},
            "hidden_size": 2048,
            "vocab_offset": VOCAB,
        },
        "audio_config": {"vocab_offset": VOCAB + 128},
    },
    "llama4": {"vision_config": {"vision_output_dim": 64, "projector_input_dim": 64, "projector_output_dim": 64}},
    "qwen4_exp": {"text_config": OWN["qwen4_exp_text"]},
}
"""What models need whose parts are among them."""
OWN |= PARTS | tiny_multimodal.OWN


MULTIMODAL: tuple[Any, ...] = (
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
)


def causal_types() -> list[str]:
    """The model types that transformers maps to a causal language model, sorted."""
    return _mapped(AutoModelForCausalLM)


def multimodal_types() -> list[str]:
    """The other types that transformers maps to a model that writes text from images, sound or text, sorted."""
    return sorted({kind for one in MULTIMODAL for kind in _mapped(one)} - set(causal_types()))


def _mapped(auto: Any) -> list[str]:
    mapping = auto._model_mapping
    return sorted(kind for kind in mapping._model_mapping if kind in mapping._config_mapping)


def tiny_config(kind: str) -> PretrainedConfig:
    """The config of a model type, with few and narrow layers."""
    return _tiny(CONFIG_MAPPING[kind], OWN.get(kind, {}))


def _tiny(kind: type[PretrainedConfig], own: dict[str, Any]) -> PretrainedConfig:
    default = kind()
    changes: dict[str, Any] = {}
    for name in getattr(kind, "sub_configs", None) or {}:
        if isinstance(sub := getattr(default, name, None), PretrainedConfig):
            changes[name] = _tiny(type(sub), own.get(name, {})).to_dict()
        elif part := own.get(name):  # that the default lacks: its type, or values with it
            values = {"model_type": part} if isinstance(part, str) else dict(part)
            changes[name] = _tiny(CONFIG_MAPPING[values.pop("model_type")], values).to_dict()
    for name, value in vars(default).items():
        if name in SIZES and isinstance(value, int) and not isinstance(value, bool):
            changes[name] = SIZES[name]
        elif name.endswith(("_token_id", "_token_index")) and isinstance(value, int | list | tuple):
            changes[name] = {"bos": 1, "eos": 2, "pad": 0}.get(name.split("_")[0], 3)
        elif ("drop" in name or "jitter" in name) and isinstance(value, float):  # noise of a training
            changes[name] = 0.0
    if getattr(default, "qk_rope_head_dim", None) and default.qk_rope_head_dim == getattr(default, "head_dim", None):
        changes["head_dim"] = changes["qk_rope_head_dim"]
    if "kv_lora_rank" in changes and "num_key_value_heads" in changes:  # latent attention has as many keys as queries
        changes["num_key_value_heads"] = changes["num_attention_heads"]
    changes |= _layers(default, changes) | _sections(default, changes)
    subs = getattr(kind, "sub_configs", None) or {}
    return kind(**(changes | {name: value for name, value in own.items() if name not in subs}))


def _layers(default: PretrainedConfig, changes: dict[str, Any]) -> dict[str, Any]:
    """Lists of a kind for each layer, with one layer of each kind, and the number of layers."""
    lists = {name: _distinct(vars(default)[name]) for name in LISTS if vars(default).get(name)}
    if not lists:
        return {}
    layers = min(MOST_LAYERS, max(LAYERS, *(len(one) for one in lists.values())))
    counts = [name for name in ("num_hidden_layers", "n_layer", "num_layers") if name in changes]
    return dict.fromkeys(counts, layers) | {name: (one + one[-1:] * layers)[:layers] for name, one in lists.items()}


def _sections(default: PretrainedConfig, changes: dict[str, Any]) -> dict[str, Any]:
    """The rotary embedding with parts for time, height and width that fit tiny heads, if it has such parts."""
    rope = getattr(default, "rope_parameters", None)
    if not isinstance(rope, dict) or "mrope_section" not in rope:
        return {}
    size = changes.get("head_dim") or changes["hidden_size"] // changes["num_attention_heads"]
    third, rest = divmod(int(size * rope.get("partial_rotary_factor", 1.0)) // 2, 3)
    return {"rope_parameters": rope | {"mrope_section": [third + rest, third, third]}} if third else {}


def _distinct(kinds: list[Any]) -> list[Any]:
    return list(dict.fromkeys(kinds))
