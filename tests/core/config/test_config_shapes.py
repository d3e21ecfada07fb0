"""Shapes from `config.json` against the models that transformers builds, and files that no model has."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llf_core.config.config_shapes import LARGEST, LAYOUTS, ModelSizeError, check_sizes, shapes_from_config
from llf_core.config.weight_shapes import count

TINY = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24}
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


def built(settings: dict[str, object]) -> dict[str, tuple[int, ...]]:
    """Shapes of transformers' own model, without memory for its weights."""
    config = AutoConfig.for_model(**settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", sorted(LAYOUTS))
@pytest.mark.parametrize("extra", [{}, {"attention_bias": True, "mlp_bias": True}, {"tie_word_embeddings": True}])
def test_small_models_have_the_shapes_of_transformers(kind: str, extra: dict[str, bool]) -> None:
    settings = {"model_type": kind, **TINY, **EXPERTS, **extra}
    assert shapes_from_config(settings) == built(settings)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_models_have_the_shapes_of_transformers_and_their_number_of_parameters(name: str) -> None:
    found = shapes_from_config(PUBLISHED[name])
    assert found == built({"pad_token_id": 0, **PUBLISHED[name]})
    assert count(found or {}) == PARAMETERS[name]


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
