"""Shapes from `config.json` against the models that transformers builds, and files that no model has."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llf_core.config.weight_shapes import LARGEST, LAYOUTS, ModelSizeError, check_sizes, count, shapes_from_config

TINY = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24}
OWN = {
    "deepseek_v3": {
        "n_routed_experts": 8, "n_shared_experts": 2, "kv_lora_rank": 12, "q_lora_rank": 20, "qk_nope_head_dim": 6,
        "qk_rope_head_dim": 4, "v_head_dim": 10, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1,
    },
    "gpt_oss": {"num_experts_per_tok": 2},
}  # fmt: skip
"""Sizes that only one model type has."""
PUBLISHED = {
    "Llama-2-7b": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False,
    },
    "Llama-3.1-70B": {
        "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    },
    "Qwen2.5-7B": {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
    },
    "Qwen3-0.6B": {
        "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "Mistral-7B-v0.1": {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "tie_word_embeddings": False,
    },
    "Mixtral-8x7B-v0.1": {
        "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8, "vocab_size": 32000,
        "tie_word_embeddings": False,
    },
    "gemma-2b": {
        "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000,
    },
    "Phi-3-mini": {
        "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "tie_word_embeddings": False,
    },
}  # fmt: skip
PARAMETERS = {
    "Llama-2-7b": 6_738_415_616, "Llama-3.1-70B": 70_553_706_496, "Qwen2.5-7B": 7_615_616_512,
    "Qwen3-0.6B": 596_049_920, "Mistral-7B-v0.1": 7_241_732_096, "Mixtral-8x7B-v0.1": 46_702_792_704,
    "gemma-2b": 2_506_172_416, "Phi-3-mini": 3_821_079_552,
}  # fmt: skip
"""As the model cards on the hub say."""

SPARSE = {
    "gpt-oss-20b": {
        "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 24,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "num_local_experts": 32,
        "num_experts_per_tok": 4, "vocab_size": 201088, "tie_word_embeddings": False,
    },
    "OLMoE-1B-7B": {
        "model_type": "olmoe", "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16,
        "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
        "vocab_size": 50304, "tie_word_embeddings": False,
    },
    "DeepSeek-V3": {
        "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
        "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "n_shared_experts": 1,
        "n_routed_experts": 256, "num_experts_per_tok": 8, "kv_lora_rank": 512, "q_lora_rank": 1536,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "first_k_dense_replace": 3,
        "vocab_size": 129280, "tie_word_embeddings": False,
    },
}  # fmt: skip
BILLIONS = {"gpt-oss-20b": 20.91, "OLMoE-1B-7B": 6.92, "DeepSeek-V3": 671.0}
"""Parameters as their papers say: arXiv 2508.10925 (table 1), 2409.02060 and 2412.19437."""


def built(settings: dict[str, object]) -> dict[str, tuple[int, ...]]:
    """Shapes of transformers' own model, without memory for its weights."""
    config = AutoConfig.for_model(**settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", sorted(LAYOUTS))
@pytest.mark.parametrize("extra", [{}, {"attention_bias": True, "mlp_bias": True}, {"tie_word_embeddings": True}])
def test_small_models_have_the_shapes_of_transformers(kind: str, extra: dict[str, bool]) -> None:
    settings = {"model_type": kind, **TINY, **tiny_experts(kind), **extra}
    assert shapes_from_config(settings) == built(settings)


def tiny_experts(kind: str) -> dict[str, object]:
    """Sizes of experts; of DeepSeek-V3, whose names transformers takes for others, its own alone."""
    return {**({} if kind == "deepseek_v3" else EXPERTS), "moe_intermediate_size": 16, **OWN.get(kind, {})}


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("deepseek_v3", {"q_lora_rank": None}),
        ("deepseek_v3", {"first_k_dense_replace": 0}),
        ("gpt_oss", {"attention_bias": False}),
        ("olmoe", {"num_key_value_heads": None}),
    ],
)
def test_settings_of_one_model_type_change_its_shapes(kind: str, extra: dict[str, object]) -> None:
    settings = {"model_type": kind, **TINY, **tiny_experts(kind), **extra}
    assert shapes_from_config(settings) == built(settings)
    assert shapes_from_config(settings) != shapes_from_config({**settings, **dict.fromkeys(extra, 1)})


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_models_have_the_shapes_of_transformers_and_their_number_of_parameters(name: str) -> None:
    found = shapes_from_config(PUBLISHED[name])
    assert found == built({"pad_token_id": 0, **PUBLISHED[name]})
    assert count(found or {}) == PARAMETERS[name]


@pytest.mark.parametrize("name", sorted(SPARSE))
def test_published_models_with_experts_have_the_parameters_of_their_papers(name: str) -> None:
    found = shapes_from_config(SPARSE[name]) or {}
    assert round(count(found) / 1e9, 2) == pytest.approx(BILLIONS[name], abs=0.05 if name == "DeepSeek-V3" else 1e-9)
    assert found == built({"pad_token_id": 0, **SPARSE[name]})


@pytest.mark.parametrize(
    "value", [-1, 0, 1.5, True, "32", float("nan"), 10**400, LARGEST["num_hidden_layers"] + 1, [1], {}]
)
def test_a_size_that_no_model_has_is_a_sentence(value: object) -> None:
    with pytest.raises(ModelSizeError, match=r"num_hidden_layers` in the model's config.json is .* from 1 to 10,000"):
        shapes_from_config({**PUBLISHED["Llama-2-7b"], "num_hidden_layers": value})


@pytest.mark.parametrize("value", [-1, "32", float("nan"), float("inf"), 1.5, 1e30, -2.0, 10**400])
@pytest.mark.parametrize("part", [None, "text_config", "vision_config"])
def test_sizes_of_any_model_type_are_checked(value: object, part: str | None) -> None:
    def settings(size: object) -> dict[str, object]:
        inner = {"num_attention_heads": size, "num_key_value_heads": [4, 8], "num_experts": 0, "head_dim": None}
        return {"model_type": "other", **({part: inner} if part else inner)}

    check_sizes(settings(32))
    with pytest.raises(ModelSizeError, match=r"`num_attention_heads` in the model's config.json is .* 1 to 100,000"):
        check_sizes(settings(value))


@pytest.mark.parametrize("dense", [{"mlp_only_layers": [1]}, {"decoder_sparse_step": 2}])
def test_layers_without_experts_are_dense(dense: dict[str, object]) -> None:
    settings = {"model_type": "qwen3_moe", **TINY, **EXPERTS, **dense}
    assert shapes_from_config(settings) == built(settings)


def test_unknown_types_and_missing_sizes_tell_nothing() -> None:
    assert shapes_from_config({}) is None
    assert shapes_from_config({"model_type": "other", **TINY}) is None
    whole = PUBLISHED["Mixtral-8x7B-v0.1"]
    for key in ("hidden_size", "num_hidden_layers", "vocab_size", "num_local_experts", "intermediate_size"):
        assert shapes_from_config({name: value for name, value in whole.items() if name != key}) is None, key


def test_the_language_model_of_a_multimodal_one_is_counted() -> None:
    inner = {"model_type": "gemma3_text", **TINY}
    assert shapes_from_config({"model_type": "gemma3", "text_config": inner}) == shapes_from_config(inner)
    assert shapes_from_config(json.loads(json.dumps({"text_config": "none", **inner}))) == shapes_from_config(inner)
