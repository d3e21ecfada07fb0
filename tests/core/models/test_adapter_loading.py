import shutil

import pytest
import torch

from llf_core.models import ModelError, save_output
from llf_core.models.adapter_folder import find_adapter, without_adapter_folder
from llf_core.models.adapter_loading import load_adapter
from llf_core.models.adapter_merging import can_merge
from llf_core.models.device import autocast_mixed_dtypes

IDS = torch.tensor([[1, 5, 9, 200]])


def disturb(model, seed):
    """Gives the adapter another effect than none."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


@pytest.fixture
def adapter(config, loaded, tmp_path):
    """`adapter("a", seed, …)` trains nothing and saves an adapter with an effect; returns folder and logits."""

    def make(name, seed, **keys):
        settings = config(**{"finetuning_type": "lora", **keys})
        source, tokenizer, model = loaded(settings)
        disturb(model, seed)
        folder = tmp_path / name
        save_output(model, tokenizer, folder, source, settings, {})
        return folder, logits(model)

    return make


def logits(model):
    with torch.no_grad(), autocast_mixed_dtypes(model):
        return model.eval()(IDS).logits.float()


def test_an_adapter_is_gone_on_with(adapter, config, loaded):
    folder, expected = adapter("a", 1, lora_rank=4)
    _, _, model = loaded(config(adapter_name_or_path=str(folder)))
    assert torch.equal(logits(model), expected)
    assert model.peft_config["default"].r == 4
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 2 * 7
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}


def test_of_several_all_but_the_last_are_merged(adapter, config, loaded, tiny_tokenizer):
    from peft import PeftModel

    from tests.tiny import tiny_llama

    (first, _), (second, _) = adapter("a", 1), adapter("b", 2)
    _, _, model = loaded(config(adapter_name_or_path=f"{first},{second}"))
    base = PeftModel.from_pretrained(tiny_llama(tiny_tokenizer), str(first)).merge_and_unload()
    expected = logits(PeftModel.from_pretrained(base, str(second)))
    assert torch.allclose(logits(model), expected, atol=0.05)  # ours computes in the plan's dtype
    assert not torch.allclose(logits(model), logits(tiny_llama(tiny_tokenizer)), atol=0.05)
    assert len(model.peft_config) == 1


def test_create_new_adapter_merges_all_of_them(adapter, config, loaded):
    folder, expected = adapter("a", 1)
    _, _, model = loaded(config(adapter_name_or_path=str(folder), create_new_adapter=True, lora_rank=2))
    assert model.peft_config["default"].r == 2
    assert torch.allclose(logits(model), expected, atol=0.05)


def refused(loaded, settings):
    with pytest.raises(ModelError) as error:
        loaded(settings)
    return str(error.value)


def test_a_prompt_cannot_be_merged(adapter, config, loaded):
    folder, _ = adapter("a", 1, finetuning_type="prompt")
    said = refused(loaded, config(adapter_name_or_path=str(folder), create_new_adapter=True))
    assert "cannot be merged into its base: adapters of the type PROMPT_TUNING" in said


def test_a_lora_with_biases_is_not_merged_into_a_base_without(config, loaded, tmp_path, tiny_model_dir):
    from peft import LoraConfig, get_peft_model

    _, _, model = loaded(config(finetuning_type="full"))
    folder = tmp_path / "with biases"
    get_peft_model(model, LoraConfig(target_modules=["q_proj"], lora_bias=True)).save_pretrained(folder)
    said = refused(loaded, config(adapter_name_or_path=str(folder), create_new_adapter=True))
    assert "cannot be merged into its base: adapters of the type LORA with its options stay separate" in said

    _, _, base = loaded(config(finetuning_type="full"))
    before = base.get_parameter("model.layers.0.self_attn.q_proj.weight").clone()
    wrapped = load_adapter(base, str(folder), config())
    assert not can_merge(wrapped)
    assert torch.equal(wrapped.get_base_model().model.layers[0].self_attn.q_proj.base_layer.weight, before)


def test_trying_to_merge_leaves_the_biases_as_they_are(tiny_tokenizer):
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny import tiny_llama

    base = LlamaForCausalLM(LlamaConfig(**tiny_llama(tiny_tokenizer).config.to_dict() | {"attention_bias": True}))
    wrapped = get_peft_model(base, LoraConfig(target_modules=["q_proj"], lora_bias=True))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if name.endswith(("q_proj.base_layer.bias", "lora_B.default.bias")):
                parameter.normal_()
    before = {name: parameter.clone() for name, parameter in wrapped.named_parameters()}
    assert can_merge(wrapped)
    assert [name for name, one in wrapped.named_parameters() if not torch.equal(one, before[name])] == []


def test_a_damaged_config_is_named_by_its_path(adapter, config, loaded):
    folder, _ = adapter("the model", 1)
    (folder / "adapter_config.json").write_text("{")
    message = refused(loaded, config(adapter_name_or_path=str(folder)))
    assert f"{folder / 'adapter_config.json'} is not valid JSON" in message
    assert message.endswith("Copy or download the adapter again.")


def test_an_adapter_of_another_model(adapter, config, loaded, tmp_path, tiny_tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny import tiny_llama

    folder, _ = adapter("a", 1)
    base = tiny_llama(tiny_tokenizer).config.to_dict() | {"hidden_size": 32, "head_dim": 8}
    LlamaForCausalLM(LlamaConfig(**base)).save_pretrained(tmp_path / "other")
    tiny_tokenizer.save_pretrained(tmp_path / "other")
    message = refused(loaded, config(model_name_or_path=str(tmp_path / "other"), adapter_name_or_path=str(folder)))
    assert f"The adapter {folder} does not fit the model {tmp_path / 'other'}: size mismatch" in message
    assert "It was trained for" in message


def test_an_adapter_of_a_deeper_model_is_not_taken_in_part(adapter, config, loaded, tmp_path, tiny_tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny import tiny_llama

    folder, _ = adapter("a", 1)
    base = tiny_llama(tiny_tokenizer).config.to_dict() | {"num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(**base)).save_pretrained(tmp_path / "shallow")
    tiny_tokenizer.save_pretrained(tmp_path / "shallow")
    message = refused(loaded, config(model_name_or_path=str(tmp_path / "shallow"), adapter_name_or_path=str(folder)))
    assert "14 weights are only in one of them, the first is base_model.model.model.layers.1." in message


def test_an_embedding_trained_whole_is_gone_on_with_to_the_last_bit(config, loaded, tmp_path):
    settings = config(additional_target="embed_tokens", bf16=True)
    source, tokenizer, model = loaded(settings)
    whole = model.get_input_embeddings().modules_to_save["default"].weight
    with torch.no_grad():
        whole.add_(1 / 3000)  # lost in bfloat16
    save_output(model, tokenizer, tmp_path / "a", source, settings, {})
    _, _, again = loaded(config(adapter_name_or_path=str(tmp_path / "a"), bf16=True))
    assert torch.equal(again.get_input_embeddings().modules_to_save["default"].weight, whole)
    assert torch.equal(logits(again), logits(model))


def test_no_adapter_there(config, loaded, tmp_path, tiny_model_dir):
    assert "No adapter at /no/such" in refused(loaded, config(adapter_name_or_path="/no/such"))
    assert "has no adapter_config.json, so it is not an adapter" in refused(
        loaded, config(adapter_name_or_path=str(tiny_model_dir))
    )


def test_a_pickled_adapter_is_refused_unless_allowed(adapter, config, loaded):
    from safetensors.torch import load_file

    folder, expected = adapter("a", 1)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    assert "allow_pickle: true" in refused(loaded, config(adapter_name_or_path=str(folder)))
    _, _, model = loaded(config(adapter_name_or_path=str(folder), allow_pickle=True))
    assert torch.equal(logits(model), expected)


def test_an_adapter_without_weights(adapter, config, loaded):
    folder, _ = adapter("a", 1)
    (folder / "adapter_model.safetensors").unlink()
    assert "has no adapter_model.safetensors" in refused(loaded, config(adapter_name_or_path=str(folder)))


def test_a_model_folder_that_is_one_says_so(adapter, config, loaded):
    folder, _ = adapter("a", 1)
    assert "is an adapter, not a model" in refused(loaded, config(model_name_or_path=str(folder)))


def test_a_base_is_not_changed_by_resuming(adapter, config, loaded, tiny_model_dir, tmp_path):
    folder, _ = adapter("a", 1)
    before = (tiny_model_dir / "model.safetensors").read_bytes()
    copy = shutil.copytree(folder, tmp_path / "copy")
    loaded(config(adapter_name_or_path=str(copy)))
    assert (tiny_model_dir / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in copy.iterdir()) == sorted(path.name for path in folder.iterdir())


def test_adapters_in_a_subfolder(adapter, config, loaded, tmp_path):
    folder, expected = adapter("all/checkpoint-2", 1)
    top, beside = tmp_path / "all", adapter("beside", 2)[0]
    keys = {"adapter_name_or_path": str(top), "adapter_folder": "checkpoint-2"}
    _, _, model = loaded(config(**keys))
    assert torch.equal(logits(model), expected)
    settled = without_adapter_folder(config(**keys))
    assert settled.model.adapter_name_or_path == (str(folder),)
    assert settled.model.adapter_folder is None
    # The result of a run that began so, or an adapter of a reference, has no such subfolder.
    assert find_adapter(str(beside), config(**keys)) == beside
    message = refused(loaded, config(**keys | {"adapter_folder": "checkpoint-3"}))
    assert "no subfolder checkpoint-3" in message
    assert "It has adapters in checkpoint-2." in message
    for outside in ("..", str(folder), "checkpoint-2/../../beside", 300 * "x"):  # no file system has so long a name
        assert "no subfolder" in refused(loaded, config(**keys | {"adapter_folder": outside}))
