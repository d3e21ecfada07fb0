import json
import shutil

import pytest
import torch

from llf_core.models import ModelError, count_parameters, load_model, load_tokenizer, plan_device, resolve_model
from llf_core.models.device import DevicePlan
from llf_core.models.gradient_checkpointing import enable_checkpointing
from llf_core.models.load import loading_dtype


@pytest.fixture
def copy(tiny_model_dir, tmp_path):
    return shutil.copytree(tiny_model_dir, tmp_path / "model")


def edit(path, **changes):
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: entry for key, entry in value.items() if entry is not None}))


def load(config):
    source = resolve_model(config.model.model_name_or_path, config)
    return load_model(source, config, plan_device(config))


def refused(config):
    with pytest.raises(ModelError) as error:
        load(config)
    return str(error.value)


def test_logits_are_those_of_the_model_that_was_saved(config, tiny_tokenizer):
    from tests.tiny import tiny_llama

    ids = torch.tensor([[1, 5, 9, 200]])
    expected = tiny_llama(tiny_tokenizer).eval()(ids).logits
    assert torch.equal(load(config(finetuning_type="full")).eval()(ids).logits, expected)


@pytest.mark.parametrize(("asked", "got"), [("auto", "sdpa"), ("sdpa", "sdpa"), ("disabled", "eager")])
def test_attention(config, asked, got):
    assert load(config(flash_attn=asked)).config._attn_implementation == got


@pytest.mark.parametrize("asked", ["fa2", "fa3"])
def test_flash_attention_that_is_not_there_is_an_error_and_no_silent_change(config, asked):
    assert f"flash_attn: {asked} needs" in refused(config(flash_attn=asked, use_cpu=False))


def test_unknown_architecture(config, copy):
    edit(copy / "config.json", model_type="hyena9")
    message = refused(config(model_name_or_path=str(copy)))
    assert "does not know the architecture 'hyena9'" in message
    assert "pip install -U transformers" in message


def test_a_model_that_generates_no_text(config, copy):
    edit(copy / "config.json", model_type="vit", architectures=["ViTModel"])
    assert "is of type 'vit', which transformers cannot load as a causal language model" in refused(
        config(model_name_or_path=str(copy))
    )


def test_own_code_is_not_run_unless_trusted(config, copy):
    edit(
        copy / "config.json",
        model_type="mine",
        auto_map={"AutoConfig": "own.MyConfig", "AutoModelForCausalLM": "own.MyModel"},
    )
    witness = copy.parent / "it-ran"
    (copy / "own.py").write_text(f"open({str(witness)!r}, 'w').close()\n")
    assert "Set trust_remote_code: true" in refused(config(model_name_or_path=str(copy)))
    assert not witness.exists()


def test_missing_weights_would_start_at_random(config, copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 weights of a LlamaForCausalLM, the first is model.layers.1.mlp.up_proj.weight" in refused(
        config(model_name_or_path=str(copy))
    )


def test_a_cut_file(config, copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "model.safetensors is truncated" in refused(config(model_name_or_path=str(copy)))


def test_config_that_is_no_json(config, copy):
    (copy / "config.json").write_text("{")
    assert "config.json is not valid JSON" in refused(config(model_name_or_path=str(copy)))


def test_an_allowed_pickle_is_loaded(config, copy, tiny_tokenizer):
    from tests.tiny import tiny_llama

    (copy / "model.safetensors").unlink()
    model = tiny_llama(tiny_tokenizer)
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    loaded = load(config(model_name_or_path=str(copy), allow_pickle=True))
    assert torch.equal(loaded.model.norm.weight, model.model.norm.weight.to(loaded.dtype))


def test_sampling_values_without_sampling_can_be_saved(config, copy, tmp_path):
    (copy / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.6, "eos_token_id": 2}')
    model = load(config(model_name_or_path=str(copy)))
    assert model.generation_config.do_sample
    model.save_pretrained(tmp_path / "again")


@pytest.mark.parametrize(
    ("method", "dtype", "loaded"),
    [
        ("full", "float16", torch.float32),  # it would round what bfloat16 holds below 6e-5
        ("full", "bfloat16", torch.bfloat16),
        ("lora", "float16", torch.float16),
    ],
)
def test_trained_weights_are_not_loaded_in_float16(config, tiny_tokenizer, tmp_path, method, dtype, loaded):
    from tests.tiny import tiny_llama

    tiny_llama(tiny_tokenizer).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    asked = config(model_name_or_path=str(tmp_path / "half"), finetuning_type=method)
    plan = DevicePlan("cuda", dtype, dtype, 1, "")
    assert loading_dtype(resolve_model(str(tmp_path / "half"), asked), asked, plan) == loaded


def losses(model, ids):
    model.train()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    "method", [{"finetuning_type": "lora"}, {"finetuning_type": "freeze", "freeze_trainable_layers": 1}]
)
def test_checkpointing_changes_no_gradient(config, loaded, reentrant, method):
    ids = torch.tensor([[1, 5, 9, 200, 33, 2]])
    torch.manual_seed(0)
    plain = losses(loaded(config(**method))[2], ids)
    torch.manual_seed(0)
    asked = config(gradient_checkpointing=True, use_reentrant_gc=reentrant, **method)
    _, _, model = loaded(asked)
    enable_checkpointing(model, asked)
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    loss, gradients = losses(model, ids)
    assert loss == plain[0]
    assert gradients.keys() == plain[1].keys()
    assert len(gradients) > 5
    assert all(torch.equal(gradients[name], plain[1][name]) for name in gradients)


def test_tied_weights_count_once(config, tiny_tokenizer):
    model = load(config(finetuning_type="full"))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert count_parameters(model.lm_head)[0] == len(tiny_tokenizer) * 64


def test_tokenizer_that_is_not_there(config, copy):
    for path in copy.glob("tokenizer*"):
        path.unlink()
    settings = config(model_name_or_path=str(copy))
    with pytest.raises(ModelError, match="has no tokenizer that transformers can read"):
        load_tokenizer(resolve_model(str(copy)), settings)


def test_tokenizer_with_more_ids_than_the_model_has_embeddings(config, copy):
    tokenizer = load_tokenizer(resolve_model(str(copy)), config())
    size = len(tokenizer)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(copy)
    with pytest.raises(ModelError, match=f"has ids up to {size}, and the model has {size} embeddings"):
        load_tokenizer(resolve_model(str(copy)), config())


def test_an_error_that_speaks_of_memory_is_not_one_of_memory(config, copy):
    edit(copy / "config.json", hidden_act="memory")
    assert "cannot be loaded" in refused(config(model_name_or_path=str(copy)))
