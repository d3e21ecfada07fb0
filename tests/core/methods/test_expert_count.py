"""The parameters of a LoRA on models with experts, counted from the headers of the files that transformers writes.

The files store experts one by one (Mixtral, Qwen, DeepSeek-V3, OLMoE), together (gpt-oss) or under other names
(GraniteMoe); the trained number is that of the adapter that LLF's own method makes of the loaded model.
"""

import pytest
from transformers import AutoModelForCausalLM

from llf_core.config import RunConfig
from llf_core.config.weight_shapes import loaded_shapes
from llf_core.estimate import trained_parameters, weight_shapes
from llf_core.models import count_parameters
from tests.core.models.tiny_configs import tiny_config

FAMILIES = ("mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3", "gpt_oss", "olmoe", "granitemoe")


def saved(kind: str, folder, tokenizer):
    """A tiny model of a family in a folder, with experts in its last layer."""
    settings = tiny_config(kind)
    if kind == "deepseek_v3":
        settings.first_k_dense_replace = 1
        settings.mlp_layer_types = ["dense", "sparse"]
    model = AutoModelForCausalLM.from_config(settings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_lora_on_experts_is_counted_as_it_is_trained(kind, tuned, tiny_tokenizer, tmp_path):
    folder = tmp_path / "moe"
    model = saved(kind, folder, tiny_tokenizer)
    shapes = weight_shapes(str(folder))
    if kind == "mixtral":  # of which transformers also renames the module that holds the experts
        shapes = {name.replace(".block_sparse_moe.", ".mlp."): shape for name, shape in shapes.items()}
    stored = {name: tuple(one.shape) for name, one in model.state_dict().items()}
    assert shapes == {name: shape for name, shape in stored.items() if name in shapes}
    assert {name for name, _ in model.named_parameters()} <= shapes.keys()
    assert any(len(shape) == 3 for shape in shapes.values())
    for keys in ({"lora_rank": 3}, {"use_dora": True}, {"lora_target": "q_proj,down_proj"}):
        if kind == "deepseek_v3" and "lora_target" in keys:
            keys["lora_target"] = "kv_b_proj,down_proj"
        config = RunConfig.load({"model_name_or_path": str(folder), "dataset": "llf_demo"} | keys)
        found = count_parameters(tuned(model_name_or_path=str(folder), **keys))[1]
        assert trained_parameters(config, shapes) == found, keys


def test_experts_in_mxfp4_are_counted_unpacked():
    """gpt-oss-20b: 32 experts of `[2880, 2 * 2880]` and `[2880, 2880]`, in blocks of 32 values of 4 bits."""
    stored = {
        "model.layers.0.mlp.experts.gate_up_proj_blocks": (32, 5760, 90, 16),
        "model.layers.0.mlp.experts.gate_up_proj_scales": (32, 5760, 90),
        "model.layers.0.mlp.experts.gate_up_proj_bias": (32, 5760),
        "model.layers.0.mlp.experts.down_proj_blocks": (32, 2880, 90, 16),
        "model.layers.0.mlp.experts.down_proj_scales": (32, 2880, 90),
        "model.layers.0.mlp.router.weight": (32, 2880),
    }
    assert loaded_shapes(stored) == {
        "model.layers.0.mlp.experts.gate_up_proj": (32, 2880, 5760),
        "model.layers.0.mlp.experts.gate_up_proj_bias": (32, 5760),
        "model.layers.0.mlp.experts.down_proj": (32, 2880, 2880),
        "model.layers.0.mlp.router.weight": (32, 2880),
    }
