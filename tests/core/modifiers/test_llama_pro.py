"""LLaMA Pro: inserted blocks change nothing, are all that is trained, and come back."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from llf_core.config import RunConfig, validate
from llf_core.config.declarations.modifiers import expanded_blocks
from llf_core.methods.adapter_targets import adapter_targets, block_list
from llf_core.models import ModelError
from llf_core.modifiers.llama_pro import insert_blocks
from llf_core.runs import RunReader
from tests.core.acceleration.architectures import tiny


@pytest.mark.parametrize(
    ("number", "depth", "expected"), [(1, 2, [1]), (2, 2, [0, 1]), (2, 6, [2, 5]), (3, 6, [1, 3, 5])]
)
def test_the_last_block_of_each_group(number, depth, expected):
    assert list(expanded_blocks(number, depth)) == expected


@pytest.mark.parametrize("number", [0, -1, 4, 7])
def test_groups_that_are_not_equal_are_refused(number):
    with pytest.raises(ValueError, match=f"freeze_trainable_layers is {number}.*divisor of 6"):
        expanded_blocks(number, 6)
    with pytest.raises(ValueError, match=f"freeze_trainable_layers is {number}, .* the 0 layers"):
        expanded_blocks(number, 0)


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen3", "qwen3-moe", "gemma2", "phi3", "gpt2", "gpt-neox", "olmo2"]
)
def test_the_model_computes_what_it_did(name):
    model = tiny(name).eval()
    ids = torch.arange(40)[None] % 90
    with torch.no_grad():
        before = model(input_ids=ids).logits
        insert_blocks(model, 2)
        torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=0, atol=0)
        cached = model.generate(ids[:, :9], max_new_tokens=6, do_sample=False)
        plain = model.generate(ids[:, :9], max_new_tokens=6, do_sample=False, use_cache=False)
    assert cached.tolist() == plain.tolist()
    assert len(block_list(model)) == 4
    assert model.config.num_hidden_layers == 4


@pytest.fixture
def llava():
    """A vision model whose encoder has as many layers as its language model, as InternVL3-1B."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=64)
    vision = CLIPVisionConfig(**sizes, image_size=16, patch_size=8)
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=3)
    ).eval()


def test_the_blocks_of_a_vision_model_are_those_of_its_language_model(llava):
    assert block_list(llava) is llava.model.language_model.layers
    insert_blocks(llava, 1)
    assert len(llava.model.language_model.layers) == llava.config.text_config.num_hidden_layers == 3
    assert len(llava.model.vision_tower.encoder.layers) == 2


def test_an_embedding_of_a_frozen_encoder_is_no_target(llava):
    assert adapter_targets(llava, ["embed_tokens"]).modules == ["embed_tokens"]
    with pytest.raises(ModelError, match="the model has no position_embedding"):
        adapter_targets(llava, ["position_embedding"])


def test_a_number_that_does_not_divide_is_told():
    with pytest.raises(ModelError, match="freeze_trainable_layers is 3"):
        insert_blocks(tiny("llama"), 3)


KEYS = {"finetuning_type": "freeze", "use_llama_pro": True, "llama_pro_insert": True, "freeze_trainable_layers": 2}


def test_a_run_trains_the_inserted_blocks_and_plain_transformers_loads_the_result(trained, tiny_model_dir):
    folder, code = trained(**KEYS, max_steps=12, learning_rate=3e-3)
    assert code == 0
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir).state_dict()
    result = AutoModelForCausalLM.from_pretrained(folder.output)
    assert result.config.num_hidden_layers == 4
    state = result.state_dict()
    for old, new in ((0, 0), (1, 2)):
        for key in (key for key in base if f"layers.{old}." in key):
            assert torch.equal(base[key], state[key.replace(f"layers.{old}.", f"layers.{new}.")]), key
    for place in (1, 3):
        assert state[f"model.layers.{place}.mlp.down_proj.weight"].abs().max() > 1e-4
    losses = RunReader(folder).metrics().values("loss")
    assert losses[-3:].mean() < losses[:3].mean()


def told(**keys):
    report = validate({"model_name_or_path": "m", "dataset": "llf_demo"} | keys)
    return {(problem.severity, problem.key) for problem in report.violations}


def test_rules():
    assert told(use_llama_pro=True, finetuning_type="lora") >= {("error", "use_llama_pro")}
    assert told(use_llama_pro=True, finetuning_type="full") >= {("error", "use_llama_pro")}
    assert told(use_llama_pro=True, finetuning_type="freeze") == {("note", "llama_pro_insert")}
    assert ("error", "llama_pro_insert") in told(llama_pro_insert=True, finetuning_type="freeze")
    assert told(**KEYS) == set()
    assert told(**{**KEYS, "freeze_trainable_layers": -2}) == {("error", "freeze_trainable_layers")}


def test_the_forecast_counts_the_inserted_blocks(tiny_model_dir):
    from llf_core.estimate import trained_parameters, weight_shapes

    config = RunConfig.load({"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo"} | KEYS)
    shapes = weight_shapes(str(tiny_model_dir))
    one = sum(torch.Size(shape).numel() for name, shape in shapes.items() if ".layers.0." in name)
    assert trained_parameters(config, shapes) == 2 * one
