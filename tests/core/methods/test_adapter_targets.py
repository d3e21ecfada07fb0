"""What an adapter is put on in architectures whose layers are named, kept or called in ways of their own."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from llf_core.config import RunConfig
from llf_core.methods.adapter_targets import adapter_targets, linear_layers, linear_names
from llf_core.methods.method import apply_method
from llf_core.models import ModelError, load_model, plan_device, resolve_model
from llf_core.models.quantize import unquantized_notice
from tests.core.models.tiny_configs import tiny_config

MORE = ["falcon_mamba", "mamba2", "bamba", "falcon_h1", "qwen3_next", "gpt_oss", "deepseek_v3"]


def tiny(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(tiny_config(kind)).eval()


def adapted(model):
    """Paths that have an adapter."""
    parts = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if "lora_A" in name}
    return {part.replace(".base_layer", "").removeprefix("base_model.model.") for part in parts}


def with_adapter(model, targets):
    """PEFT's wrapper, with an adapter that has learned something."""
    settings = LoraConfig(
        task_type="CAUSAL_LM", r=2, target_modules=targets.modules, target_parameters=targets.parameters or None
    )
    wrapped = get_peft_model(model, settings).eval()
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    return wrapped


def test_a_name_that_is_a_number_tells_the_layers_apart_from_all_others():
    model = tiny("ctrl")
    targets = adapter_targets(model, ["all"])
    assert {"ffn.0", "ffn.2", "dense", "Wk"} <= set(targets.modules)
    assert adapted(with_adapter(model, targets)) == linear_layers(tiny("ctrl")).keys()


def test_a_linear_layer_that_computes_something_else_is_left_out():
    model = tiny("phimoe")
    assert any(isinstance(one, nn.Linear) and name.endswith("router") for name, one in model.named_modules())
    assert linear_names(model) == ["k_proj", "o_proj", "q_proj", "v_proj"]
    with pytest.raises(ModelError, match="router of PhimoeForCausalLM computes more than a product"):
        adapter_targets(model, ["router"])


def test_what_peft_forbids_is_left_out_and_told():
    model = tiny("mamba")
    targets = adapter_targets(model, ["all"])
    assert targets.modules == ["in_proj", "x_proj"]
    assert targets.notes[0] == "lora_target: all leaves out mixer.out_proj, which PEFT puts no adapter on."
    with_adapter(model, targets)
    with pytest.raises(ModelError, match=r"PEFT puts no adapter on mixer.out_proj of MambaForCausalLM"):
        adapter_targets(model, ["out_proj"])


@pytest.mark.parametrize("kind", ["jamba", "mamba", *(pytest.param(one, marks=pytest.mark.long) for one in MORE)])
def test_every_adapter_of_all_is_trained(kind):
    model = tiny(kind)
    wrapped = with_adapter(model, adapter_targets(model, ["all"])).train()
    wrapped(input_ids=torch.arange(3, 15)[None], use_cache=False).logits.square().sum().backward()
    learned = {name: one.grad for name, one in wrapped.named_parameters() if "lora_" in name}
    assert [name for name, grad in learned.items() if grad is None or not grad.any()] == []


def test_a_layer_whose_weight_the_model_computes_with_is_left_out_and_told():
    model = tiny("mamba")
    assert (
        "mixer.dt_proj, since the model computes with the weight directly" in adapter_targets(model, ["all"]).notes[1]
    )
    with pytest.raises(ModelError, match=r"MambaForCausalLM computes with the weight of mixer.dt_proj directly"):
        adapter_targets(model, ["dt_proj", "in_proj"])
    assert "altup.correction_coefs" in adapter_targets(tiny("gemma3n_text"), ["all"]).notes[0]


def test_the_output_head_is_named_as_what_it_is():
    with pytest.raises(
        ModelError, match=r"lm_head is the output head, which gets no adapter.* additional_target: lm_h"
    ):
        adapter_targets(tiny("mixtral"), ["q_proj", "lm_head"])


def test_experts_that_no_adapter_reaches_are_told():
    model = tiny("dbrx")
    assert "leaves out mlp.v1, mlp.w1, mlp.w2, the weights of experts" in adapter_targets(model, ["all"]).notes[0]
    model.is_quantized = True
    assert "leaves the experts of DbrxForCausalLM in float32" in unquantized_notice(model)


def test_slices_of_a_weight_are_not_taken_for_another_use_of_it():
    assert {"dense", "dense_4h_to_h"} <= set(adapter_targets(tiny("bloom"), ["all"]).modules)


def test_layers_with_a_weight_in_common_are_left_out_since_their_adapters_would_be_merged_into_it_twice():
    model = tiny("zamba2")
    targets = adapter_targets(model, ["all"])
    note = next(one for one in targets.notes if "have a weight in common" in one)
    assert "self_attn.q_proj" in note
    assert "in_proj" in " ".join(targets.modules)
    with pytest.raises(ModelError, match=r"lora_target: self_attn.q_proj of Zamba2ForCausalLM have a weight in common"):
        adapter_targets(model, ["q_proj"])
    wrapped = with_adapter(model, targets)
    ids = torch.arange(3, 19)[None]
    with torch.no_grad():
        expected = wrapped(input_ids=ids, use_cache=False).logits
        merged = wrapped.merge_and_unload()(input_ids=ids, use_cache=False).logits
    assert torch.allclose(merged, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["mixtral", pytest.param("qwen2_moe", marks=pytest.mark.long)])
def test_all_reaches_experts_and_plain_peft_loads_and_merges_them(kind, tmp_path):
    model = tiny(kind)
    model.save_pretrained(tmp_path / "base")
    wrapped = with_adapter(model, adapter_targets(model, ["all"]))
    experts = "model.layers.0.mlp.experts"
    assert experts in adapted(wrapped)
    if kind == "qwen2_moe":  # a name that PEFT takes for that of the experts
        assert "model.layers.0.mlp.shared_expert.down_proj" in adapted(wrapped)
    wrapped.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(5, 20)[None]
    with torch.no_grad():
        wanted = wrapped(input_ids=ids).logits
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
        assert not torch.allclose(base(input_ids=ids).logits, wanted, atol=1e-3)
        loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        torch.testing.assert_close(loaded(input_ids=ids).logits, wanted, rtol=0, atol=1e-6)
        torch.testing.assert_close(loaded.merge_and_unload()(input_ids=ids).logits, wanted, rtol=1e-5, atol=1e-5)


def test_experts_are_found_by_the_name_of_their_parameter():
    model = tiny("mixtral")
    targets = adapter_targets(model, ["gate_up_proj"])
    assert (targets.modules, targets.parameters) == ([], ["experts.gate_up_proj"])
    assert adapted(with_adapter(model, targets)) == {f"model.layers.{layer}.mlp.experts" for layer in (0, 1)}
    with pytest.raises(ModelError, match=r"no w1. Choose from: .*gate_up_proj"):
        adapter_targets(tiny("mixtral"), ["w1"])


def test_experts_get_no_adapter_with_dropout_dora_or_an_initialization():
    model = tiny("mixtral")
    targets = adapter_targets(model, ["all"], plain=False)
    assert targets.parameters == []
    assert "neither lora_dropout, use_dora nor an initialization from the weights" in targets.notes[0]
    with pytest.raises(ModelError, match="Expected lora_dropout: 0"):
        adapter_targets(model, ["gate_up_proj"], plain=False)


def test_an_adapter_that_peft_would_not_find_again_is_not_made():
    targets = adapter_targets(tiny("laguna"), ["all"])
    assert not any("shared_experts" in name for name in (*targets.modules, *targets.parameters))
    assert "shared_experts.down_proj" in targets.notes[0]


def test_experts_that_stay_unquantized_are_told(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "home"))
    tiny("mixtral").save_pretrained(tmp_path / "moe")
    tiny_tokenizer.save_pretrained(tmp_path / "moe")
    keys = {"model_name_or_path": str(tmp_path / "moe"), "dataset": "llf_demo", "use_cpu": True, "quantization_bit": 4}
    config = RunConfig.load(keys)
    model = load_model(resolve_model(str(tmp_path / "moe"), config), config, plan_device(config))
    told = unquantized_notice(model)
    assert "leaves the experts of MixtralForCausalLM in" in told
    every = sum(one.numel() for one in tiny("mixtral").parameters())
    assert f"147,456 of {every:,} parameters" in told


def test_rwkv_in_four_bits_evaluates_with_its_adapter(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "home"))
    tiny("rwkv").save_pretrained(tmp_path / "rwkv")
    tiny_tokenizer.save_pretrained(tmp_path / "rwkv")
    keys = {"model_name_or_path": str(tmp_path / "rwkv"), "dataset": "llf_demo", "use_cpu": True, "quantization_bit": 4}
    config = RunConfig.load(keys)
    model = load_model(resolve_model(str(tmp_path / "rwkv"), config), config, plan_device(config))
    model = apply_method(model, config)
    with torch.no_grad():
        assert model.eval()(input_ids=torch.arange(5, 20)[None]).logits.isfinite().all()
