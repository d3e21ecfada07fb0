import logging
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from llf_core.config import quantizers
from llf_core.config.registry import quantizer_of
from llf_core.estimate import architecture
from llf_core.estimate.memory_forecast import weight_bytes
from llf_core.generation import generate
from llf_core.models import ModelError, count_parameters, load_model, plan_device, resolve_model
from llf_core.models.checksums import stored_bytes
from llf_core.models.step_forecast import base_shapes
from tests.core.models.other_quantizers import OTHER_QUANTIZERS

IDS = torch.tensor([[1, 5, 9, 200, 33, 2]])
LINEAR_WEIGHTS = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
KINDS = [
    {"quantization_bit": 4},
    {"quantization_bit": 4, "quantization_type": "fp4"},
    {"quantization_bit": 4, "double_quantization": False},
    {"quantization_bit": 8},
    *OTHER_QUANTIZERS,
]


def step(model):
    model.train()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("keys", KINDS)
def test_an_evaluation_in_between_changes_no_gradient(config, loaded, keys):
    """bitsandbytes repacks 4-bit weights in eval mode for a kernel without a backward pass."""
    torch.manual_seed(0)
    _, tokenizer, model = loaded(config(bf16=True, **keys))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    loss, gradients = step(model)
    assert len(gradients) == 2 * 2 * 7
    assert all(gradient.abs().sum() > 0 for gradient in gradients.values())
    generate(model, tokenizer, ["one two"], max_new_tokens=2)
    with torch.no_grad():
        model.eval()(IDS)
    again, after = step(model)
    assert again == loss
    assert all(torch.equal(after[name], gradients[name]) for name in gradients)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the kernel tells no mapped files")
@pytest.mark.parametrize("keys", KINDS)
def test_the_weight_files_are_not_kept_in_memory(config, loaded, tiny_model_dir, tmp_path, keys):
    """The embedding stays unquantized; as a view of a file in bfloat16 it would keep all of it mapped."""
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.bfloat16).save_pretrained(folder)
    _, _, model = loaded(config(bf16=True, model_name_or_path=str(folder), **keys))
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert str(folder / "model.safetensors") not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("keys", KINDS)
def test_loss_is_near_that_of_the_whole_weights_and_falls(config, loaded, keys):
    torch.manual_seed(0)
    _, _, model = loaded(config(bf16=True, **keys))
    torch.manual_seed(0)
    whole, _ = step(loaded(config(bf16=True))[2])
    first, _ = step(model)
    assert first == pytest.approx(whole, rel=0.04 if keys["quantization_bit"] == 1 else 0.02)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(8):
        last, _ = step(model)
        optimizer.step()
    assert last < 0.97 * first


@pytest.mark.parametrize("keys", KINDS)
def test_only_the_linears_are_packed_and_counted_as_what_they_stand_for(config, loaded, keys):
    whole = count_parameters(loaded(config(bf16=True))[2])
    _, _, model = loaded(config(bf16=True, **keys))
    assert count_parameters(model) == whole
    packed = [p for p in model.parameters() if p.dtype in {torch.uint8, torch.int8}]
    if keys.get("quantization_method") is None:
        assert sum(p.numel() * p.element_size() for p in packed) == LINEAR_WEIGHTS * keys["quantization_bit"] // 8
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16


@pytest.mark.parametrize("keys", KINDS)
def test_the_forecast_counts_the_bytes_that_are_stored(config, tmp_path, tiny_tokenizer, keys):
    """Within 3 %, of layers of 256 rows and columns. The tiny model's rows would be short for their scales."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=len(tiny_tokenizer))).save_pretrained(tmp_path / "model")
    asked = config(bf16=True, model_name_or_path=str(tmp_path / "model"), **keys)
    model = load_model(resolve_model(asked.model.model_name_or_path, asked), asked, plan_device(asked))
    found = architecture(base_shapes(model), model.config.to_dict())
    each = quantizer_of(asked).bytes_per_weight(asked.model.quantization_bit, 2)
    forecast = weight_bytes(found, count_parameters(model)[0], width=2, each=each)
    slack = 0.08 if keys.get("double_quantization") is False else 0.03  # the table has double quantization, the default
    assert stored_bytes(model) == pytest.approx(forecast, rel=slack)


def test_four_bit_settings_are_passed_on(config, loaded):
    _, _, model = loaded(config(bf16=True, quantization_bit=4, quantization_type="fp4", double_quantization=False))
    layer = model.base_model.model.model.layers[0].mlp.up_proj.base_layer
    assert layer.weight.quant_state.quant_type == "fp4"
    assert layer.weight.quant_state.nested is False
    assert layer.compute_dtype == torch.bfloat16


def test_the_line_of_every_8_bit_product_is_left_out_of_the_log(config, loaded, caplog):
    _, _, model = loaded(config(bf16=True, quantization_bit=8))
    with caplog.at_level(logging.WARNING, logger="bitsandbytes"):
        step(model)
        logging.getLogger("bitsandbytes.autograd._functions").warning("something new")
    assert [record.message for record in caplog.records] == ["something new"]


def test_without_bitsandbytes_it_says_what_to_install(config, loaded, monkeypatch):
    asked = config(quantization_bit=4)
    monkeypatch.setattr(quantizers, "_is_installed", lambda module: False)
    with pytest.raises(ModelError, match=r"quantization_bit: 4 needs bitsandbytes.*pip install bitsandbytes"):
        loaded(asked)
