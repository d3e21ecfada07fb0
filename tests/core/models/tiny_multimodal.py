"""What tiny configs of models that take images or sound need besides the sizes of `tiny_configs`."""

from __future__ import annotations

from typing import Any

ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
MROPE: dict[str, Any] = ROPE | {"mrope_section": [4, 2, 2]}
"""Rotary embedding of heads of 16, with a part each for time, height and width."""
VQ: dict[str, Any] = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "latent_channels": 32}
SAM: dict[str, Any] = {"global_attn_indexes": [1], "output_channels": 32, "downsample_channels": [32, 64]}
OWN: dict[str, dict[str, Any]] = {
    "apertus1p5": {
        "vision_config": VQ | {"attn_resolutions": [], "codebook_size": 8, "embed_dim": 32},
        "audio_config": {"codebook_dim": 64, "codebook_size": 8},
        "image_token_offset": 360,
        "audio_token_offset": 368,
    },
    "chameleon": {
        "vocabulary_map": {"<image>": 3, "IMGIMGA": 5},
        "vq_config": VQ | {"embed_dim": 32, "num_embeddings": 64},
    },
    "cohere2_vision": {"alignment_intermediate_size": 96},
    "cohere_compass": {"text_config": {"rope_parameters": {"full_attention": MROPE}}},
    "cosmos3_edge": {"text_config": {"rope_parameters": MROPE}, "projector_hidden_size": 96},
    "deepseek_ocr2": {
        "vision_config": {"sam_config": SAM},
        "text_config": {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    },
    "fast_vlm": {"vision_config": {"architecture": "fastvit_mci0", "hidden_size": 64}},
    "deepseek_vl_hybrid": {"high_res_vision_config": {"global_attn_indexes": [1], "output_channels": 32}},
    "ernie4_5_vl_moe": {
        "text_config": {"moe_intermediate_size": [32, 32], "rope_parameters": MROPE | {"mrope_section": [3, 3, 2]}}
    },
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 16}},
    "glm5_next": {"text_config": {"index_kpool": 4, "qk_rope_head_dim": 0, "head_dim": 0}},
    "granite4_vision": {
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[0, 0], [1, 1]],
        "spatial_target_layers": [0, 1],
    },
    "granite_speech": {"encoder_config": {"hidden_dim": 64, "num_layers": 2, "context_size": 50}},
    "hunyuan_vl": {"text_config": {"head_dim": 16, "rope_parameters": MROPE}},
    "hy_v4_vl": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [2, 1, 1]}}},
    "idefics": {"vision_config": {"embed_dim": 64}},
    "inkling2": {"vision_config": {"text_hidden_size": 64, "projection_hidden_dim": 96}},
    "inkling_mm_model": {"vision_config": {"text_hidden_size": 64}, "audio_config": {"text_hidden_size": 64}},
    "janus": {
        "vision_config": {"projection_dim": 64, "image_size": 64},
        "vq_config": VQ | {"num_embeddings": 64, "projection_dim": 64, "image_token_embed_dim": 64},
    },
    "kosmos-2": {"text_config": {"embed_dim": 64, "layers": 2}},
    "kosmos-2.5": {"text_config": {"embed_dim": 64, "layers": 2}, "latent_query_num": 16},
    "kyutai_speech_to_text": {"codec_config": {"num_filters": 4, "codebook_dim": 16, "codebook_size": 64}},
    "minimax_m3_vl": {"projector_hidden_size": 64, "vision_config": {"image_size": 56}},
    "mistral4": {"head_dim": 8},
    "molmo2": {
        "adapter_config": {"vision_feature_layer": [-1, -2], "text_hidden_size": 64},
        "text_config": {"additional_vocab_size": 16},
    },
    "muse_glimmer": {"out_hidden_size": 64, "projector_hidden_size": 64},
    "muse_spark": {
        "text_config": {"moe_hidden_size": 64},
        "out_hidden_size": 64,
        "projector_hidden_size": 64,
        "audio_config": {"patch_sizes": [16, 6], "hidden_sizes": [32, 64], "depths": [1, 1]},
    },
    "nemo_speechlm": {"head_config": {"audio_hidden_size": 64}},
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}, "vision_hidden_size": 64},
    "omniasr": {"audio_config": {"conv_dim": [64] * 7}},
    "paligemma": {"text_config": {"vocab_size": 1600}},
    "pp_chart2table": {"vision_config": SAM},
    "qwen2_vl": {"vision_config": {"depth": 2, "embed_dim": 64}, "text_config": {"rope_parameters": MROPE}},
    "qwen3_asr": {"audio_config": {"downsample_hidden_size": 32, "output_dim": 64}},
    "qwen3_omni_moe_thinker": {"audio_config": {"downsample_hidden_size": 32, "output_dim": 64}},
    "unlimited_ocr": {"vision_config": {"sam_config": SAM}},
}
"""Values of single types."""
OWN |= {
    "granite_speech_plus": OWN["granite_speech"],
    "inkling2_loop": OWN["inkling2"],
}
