"""What tiny configs of models that take images or sound need besides the sizes of `tiny_configs`."""

from __future__ import annotations

from typing import Any

ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
MROPE: dict[str, Any] = ROPE | {"mrope_section": [4, 2, 2]}
"""Rotary embedding of heads of 16, with a part each for time, height and width."""
MROPE_TYPES = ("glm4v", "glm46v", "glm_ocr", "glmga", "paddleocr_vl")
VQ: dict[str, Any] = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "latent_channels": 32}
SAM: dict[str, Any] = {"global_attn_indexes": [1], "output_channels": 32, "downsample_channels": [32, 64]}
WINDOWS: dict[str, Any] = {"window_size": 112, "fullatt_block_indexes": [1]}
GRID = [[64, 128], [128, 64]]
CODEC: dict[str, Any] = {"num_filters": 4, "downsampling_ratios": [40, 80], "depths": [1, 1, 1], "hidden_size": 64}
OWN: dict[str, dict[str, Any]] = {
    "apertus1p5": {
        "vision_config": VQ
        | {"channel_multiplier": [1] * 5, "attn_resolutions": [], "codebook_size": 8, "embed_dim": 32},
        "audio_config": {"codebook_dim": 64, "codebook_size": 8, "num_filters": 4},
        "image_token_offset": 360,
        "audio_token_offset": 368,
    },
    "aria": {"projector_patch_to_query_dict": {100: 4}, "vision_config": {"image_size": 980, "patch_size": 98}},
    "chameleon": {
        "vocabulary_map": {"<image>": 3} | {f"IMGIMG{letter}Z": 440 + code for code, letter in enumerate("ABCDEFGH")},
        "vq_config": VQ | {"channel_multiplier": [1] * 4, "embed_dim": 32, "num_embeddings": 8},
    },
    "cohere2_vision": {"alignment_intermediate_size": 96},
    "cohere_compass": {"text_config": {"rope_parameters": {"full_attention": MROPE}}},
    "cosmos3_edge": {"text_config": {"rope_parameters": MROPE}, "projector_hidden_size": 96},
    "deepseek_ocr2": {
        "vision_config": {"sam_config": SAM},
        "text_config": {
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "mlp_layer_types": ["dense", "sparse"],
        },
    },
    "fast_vlm": {"vision_config": {"architecture": "fastvit_t8", "hidden_size": 768}},
    "deepseek_vl_hybrid": {"high_res_vision_config": {"global_attn_indexes": [1], "output_channels": 32}},
    "ernie4_5_vl_moe": {
        "text_config": {"moe_intermediate_size": [32, 32], "rope_parameters": MROPE | {"mrope_section": [3, 3, 2]}}
    },
    "exaone4_5": {"vision_config": WINDOWS},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 16}},
    "gemma3": {"vision_config": {"image_size": 64, "patch_size": 16}, "mm_tokens_per_image": 4},
    "gemma4": {"vision_config": "gemma4_vision", "audio_config": "gemma4_audio"},
    "gemma4_unified": {
        "vision_config": {
            "model_type": "gemma4_unified_vision",
            "mm_embed_dim": 64,
            "mm_posemb_size": 64,
            "output_proj_dims": 64,
        },
        "audio_config": "gemma4_unified_audio",
    },
    "glm5_next": {"text_config": {"index_kpool": 4, "qk_rope_head_dim": 0, "head_dim": 0}},
    "granite4_vision": {
        "vision_config": {"image_size": 64, "patch_size": 16},
        "image_grid_pinpoints": GRID,
        "projector_dropout": 0.0,
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[0, 0], [1, 1]],
        "spatial_target_layers": [0, 1],
    },
    "granite_speech": {"encoder_config": {"hidden_dim": 64, "num_layers": 2, "context_size": 50}},
    "hunyuan_vl": {"text_config": {"head_dim": 16, "rope_parameters": MROPE}},
    "hy_v4_vl": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [2, 1, 1]}}},
    "hyperclovax_vision_v2": {"vision_config": WINDOWS},
    "idefics": {"vision_config": {"embed_dim": 64}},
    "idefics3": {"vision_config": {"image_size": 64, "patch_size": 16}},
    "inkling2": {"vision_config": {"text_hidden_size": 64, "projection_hidden_dim": 96}},
    "inkling_mm_model": {"vision_config": {"text_hidden_size": 64}, "audio_config": {"text_hidden_size": 64}},
    "janus": {
        "vision_config": {"projection_dim": 64, "image_size": 64},
        "vq_config": VQ | {"num_embeddings": 64, "projection_dim": 64, "image_token_embed_dim": 64},
    },
    "kimi_k25": {"projection_hidden_size": 64, "projection_bias": False},
    "kosmos-2": {"text_config": {"embed_dim": 64, "layers": 2, "vocab_size": 1600}},
    "kosmos-2.5": {"text_config": {"embed_dim": 64, "layers": 2}},
    "kyutai_speech_to_text": {"codec_config": {"num_filters": 4, "codebook_dim": 16, "upsample_groups": 64}},
    "llava_next": {"vision_config": {"image_size": 64, "patch_size": 16}, "image_grid_pinpoints": GRID},
    "llava_onevision": {"vision_config": {"image_size": 64, "patch_size": 16}, "image_grid_pinpoints": GRID},
    "minimax_m3_vl": {"projector_hidden_size": 64, "vision_config": {"image_size": 56}},
    "mistral4": {"head_dim": 8},
    "mllama": {"vision_config": {"intermediate_layers_indices": [0, 1], "vision_output_dim": 192}},
    "molmo2": {
        "adapter_config": {"vision_feature_layer": [-1, -2], "text_hidden_size": 64},
        "text_config": {"additional_vocab_size": 16},
    },
    "muse_glimmer": {"out_hidden_size": 256, "projector_hidden_size": 64},
    "muse_spark": {
        "text_config": {"moe_hidden_size": 64},
        "out_hidden_size": 256,
        "projector_hidden_size": 64,
        "audio_config": {"patch_sizes": [16, 120], "hidden_sizes": [32, 64], "depths": [1, 1]},
    },
    "nemo_speechlm": {
        "audio_config": {
            "asr_config": {"num_key_value_heads": 4},
            "diarization_config": {
                "audio_config": {"num_key_value_heads": 4},
                "head_config": {"audio_hidden_size": 64},
            },
        },
        "word_timestamp_config": {"num_key_value_heads": 4},
    },
    "nemotron_h_omni": {
        "image_token_id": 3,
        "audio_token_id": 3,
        "audio_config": {"model_type": "parakeet_encoder", "projection_hidden_size": 64, "projection_bias": False},
        "vision_config": {"video_temporal_patch_size": 2},
        "vision_hidden_size": 64,
    },
    "omniasr": {"audio_config": {"conv_dim": [64] * 7}},
    "paligemma": {
        "text_config": {"vocab_size": 1600},
        "vision_config": {"projection_dim": 64},
        "projection_dim": 64,
    },
    "perception_lm": {
        "vision_config": {
            "architecture": "vit_pe_core_tiny_patch16_384",
            "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 4, "img_size": [64, 64], "global_pool": ""},
        }
    },
    "pp_chart2table": {"vision_config": SAM},
    "qwen2_5_omni_thinker": {
        "audio_config": {"output_dim": 64},
        "vision_config": WINDOWS,
        "text_config": {"rope_parameters": MROPE},
        "vision_start_token_id": 3,
        "vision_end_token_id": 3,
    },
    "qwen2_5_vl": {"vision_config": WINDOWS, "text_config": {"rope_parameters": MROPE}},
    "qwen2_vl": {"vision_config": {"depth": 2, "embed_dim": 64}, "text_config": {"rope_parameters": MROPE}},
    "qwen3_asr": {"audio_config": {"downsample_hidden_size": 32, "output_dim": 64}},
    "qwen3_omni_moe_thinker": {
        "audio_config": {"downsample_hidden_size": 32, "output_dim": 64},
        "vision_start_token_id": 3,
        "vision_end_token_id": 3,
    },
    "smolvlm": {"vision_config": {"image_size": 64, "patch_size": 16}},
    "step3p7": {"text_config": {"sliding_window": 8}},
    "unlimited_ocr": {"vision_config": {"sam_config": SAM}},
    "vipllava": {"vision_feature_layers": [-1, -2]},
    "vibevoice_asr": {
        "acoustic_tokenizer_encoder_config": CODEC | {"vae_std": 0.0},  # noise
        "semantic_tokenizer_encoder_config": CODEC | {"hidden_size": 128},
    },
}
"""Values of single types."""
OWN |= {
    **{kind: {"text_config": {"rope_parameters": MROPE}} for kind in MROPE_TYPES},
    "glm4v_moe": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [2, 1, 1]}}},
    "granite_speech_plus": OWN["granite_speech"],
    "llava_next_video": OWN["llava_next"],
    "inkling2_loop": OWN["inkling2"],
}

USED_BY = {
    "cosmos3_omni": "qwen3_vl",
    "diffusion_gemma": "gemma4",
    "fast_vlm": "llava",
    "glm4v_moe": "glm4v",
    "glm_ocr": "glm46v",
    "glmga": "glm46v",
    "musicflamingo": "audioflamingo3",
    "qwen2_5_omni_thinker": "qwen2_5_omni",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe",
    "qwen3_vl_moe": "qwen3_vl",
}
"""Types whose checkpoints come with the processor of another type, which transformers' mapping does not say."""
OTHER_NAMES = {"kosmos-2": "Kosmos2Processor", "kosmos-2.5": "Kosmos2_5Processor"}
"""Processors of types that no mapping names."""
SPLIT: dict[str, dict[str, Any]] = {
    "processor": {"image_seq_len": 4},
    "image_processor": {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}},
}
FULL_ONLY = ("deepseek_ocr2", "mistral_large4", "unlimited_ocr")
"""Types that are tried with media by full fine-tuning, since LoRA of all their modules is refused."""
ALONE = {("emu3", "image"): "Padded media", ("gemma3n", "audio"): "Padded media"}
"""What is tried with one example in a micro-batch, and the property of the architecture that is the reason."""
HEARD_BY = {"nemotron_h_omni": "parakeet_ctc"}
"""Types whose processor takes the feature extractor of another type."""
PROCESSORS: dict[str, dict[str, dict[str, Any]]] = {
    "aria": {"processor": {"size_conversion": {980: 4}}},
    "aya_vision": {"processor": {"patch_size": 32, "img_size": 224}},
    "chameleon": {
        "processor": {"image_seq_length": 64},
        "image_processor": {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
    },
    "cohere2_vision": {"image_processor": {"patch_size": 7}},
    "deepseek_vl": {"processor": {"num_image_tokens": 196}},
    "deepseek_vl_hybrid": {"processor": {"num_image_tokens": 196}},
    "dots3_note": {"image_processor": {"temporal_patch_size": 1}, "video_processor": {"temporal_patch_size": 1}},
    "ernie4_5_vl_moe": {"video_processor": {"draw_on_frames": False}},
    "emu3": {"image_processor": {"min_pixels": 64 * 64, "max_pixels": 64 * 64}},
    "fast_vlm": {"processor": {"patch_size": 32, "vision_feature_select_strategy": "full"}},
    "gemma3n": {"image_processor": {"size": {"height": 256, "width": 256}}},
    "granite4_vision": {
        "processor": {"downsample_rate": "1/2", "num_additional_image_tokens": 1},
        "image_processor": {"image_grid_pinpoints": GRID},
    },
    "idefics3": SPLIT,
    "janus": {"processor": {"num_image_tokens": 16}},
    "llava": {"processor": {"num_additional_image_tokens": 1}},
    "llava_next": {
        "processor": {"num_additional_image_tokens": 1},
        "image_processor": {"image_grid_pinpoints": GRID},
    },
    "llava_next_video": {
        "processor": {"num_additional_image_tokens": 1},
        "image_processor": {"image_grid_pinpoints": GRID},
    },
    "llava_onevision": {
        "processor": {"num_image_tokens": 16},
        "image_processor": {"image_grid_pinpoints": GRID},
    },
    "vipllava": {"processor": {"num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}},
    "paligemma": {"image_processor": {"image_seq_length": 196}},
    "perception_lm": {"processor": {"patch_size": 16, "pooling_ratio": 1}, "image_processor": {"tile_size": 64}},
    "smolvlm": SPLIT,
    "video_llava": {"processor": {"num_additional_image_tokens": 1}},
}
"""Values of single types: of the processor and of its parts."""
