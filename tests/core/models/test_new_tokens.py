"""Tokens that a run adds: how their embeddings begin, and that plain PEFT and transformers load them again."""

import copy
import math

import pytest
import torch
from safetensors.torch import load_file

from llf_core.acceleration.patching.causal_head import install_head
from llf_core.config import RunConfig, validate
from llf_core.config.name_checks.check import check
from llf_core.models import ModelError, load_model, load_tokenizer, plan_device, resolve_model, save_output
from llf_core.models.device import autocast_mixed_dtypes
from tests.tiny import tiny_llama

NEW = ("<fish>", "<ship>")
IDS = torch.tensor([[1, 5, 9, 200, 7]])


@pytest.fixture(scope="module", params=["tied", "untied"])
def folder(request, tmp_path_factory, tiny_tokenizer):
    """A model whose output head has the embedding's weight, or one of its own."""
    made = tmp_path_factory.mktemp(request.param)
    model = tiny_llama(tiny_tokenizer)
    if request.param == "untied":
        settings = copy.deepcopy(model.config)
        settings.tie_word_embeddings = False
        torch.manual_seed(1)
        model = type(model)(settings)
    model.save_pretrained(made)
    tiny_tokenizer.save_pretrained(made)
    return made


@pytest.fixture
def settings(folder):
    def make(**keys):
        values = {"model_name_or_path": str(folder), "dataset": "llf_demo", "use_cpu": True}
        return RunConfig.load(values | {"add_special_tokens": ",".join(NEW)} | keys)

    return make


def matrices(model):
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    return [embedding] if head is embedding else [embedding, head]


def loaded_model(config):
    return load_model(resolve_model(config.model.model_name_or_path, config), config, plan_device(config))


@pytest.fixture
def described(tmp_path):
    path = tmp_path / "tokens.yaml"
    path.write_text("<fish>: light of the sea\n<ship>: the <fish> and the lighthouse\n")
    return str(path)


@pytest.mark.parametrize("how", ["mean_init", "noise_init", "desc_init", "desc_init_w_noise"])
def test_new_rows_begin_as_in_float64_by_hand(settings, folder, described, tiny_tokenizer, how):
    keys = {"add_special_tokens": None, "new_special_tokens_config": described} if "desc" in how else {}
    config = settings(init_special_tokens=how, finetuning_type="full", pure_bf16=False, **keys)
    model, size = loaded_model(config), len(tiny_tokenizer)
    plain = [one.double() for one in matrices(loaded_model(settings(add_special_tokens=None, finetuning_type="full")))]
    generator = torch.Generator().manual_seed(config.training.seed)
    tokenizer = load_tokenizer(resolve_model(str(folder), config), config)
    ids = tokenizer.convert_tokens_to_ids(list(NEW))
    assert ids == [size, size + 1]
    assert [len(one) % 64 for one in matrices(model)] == [0] * len(plain)
    for old, weight in zip(plain, matrices(model), strict=True):
        starts = [old.mean(dim=0)] * 2
        if "desc" in how:
            words = ["light of the sea", "the <fish> and the lighthouse"]
            read = [[one for one in tokenizer(text).input_ids if one < size] for text in words]
            starts = [torch.stack([old[one] for one in own]).sum(dim=0) / len(own) for own in read]
        expected = torch.stack(starts)
        if "noise" in how:
            expected += torch.randn(2, old.shape[1], generator=generator).double() / math.sqrt(old.shape[1])
        assert torch.allclose(weight[size : size + 2].double(), expected, rtol=0, atol=1e-6)
        assert torch.equal(weight[:size].double(), old)
    again = loaded_model(config)
    for one, other in zip(matrices(model), matrices(again), strict=True):
        assert torch.equal(one[: size + 2], other[: size + 2])


def with_rows(config, loaded):
    """A model after its method, whose adapter and new rows have an effect."""
    source, tokenizer, model = loaded(config)
    return source, tokenizer, with_rows_changed(model)


def with_rows_changed(model):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ("lora_B" in name or "token_adapter" in name):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def logits(model, size):
    ids = torch.cat([IDS, torch.tensor([[size, size + 1, size]])], dim=1)
    with torch.no_grad(), autocast_mixed_dtypes(model):
        return model.eval()(ids).logits.float()


@pytest.mark.parametrize("method", ["lora", "adalora"])
def test_plain_peft_loads_an_adapter_with_new_tokens(settings, loaded, tmp_path, tiny_tokenizer, method):
    from peft import AutoPeftModelForCausalLM

    config, size = settings(finetuning_type=method, pure_bf16=False, bf16=False), len(tiny_tokenizer)
    source, tokenizer, model = with_rows(config, loaded)
    trained = {name: one for name, one in model.named_parameters() if "token_adapter" in name and one.requires_grad}
    assert {tuple(one.shape) for one in trained.values()} == {(2, 64)}
    assert len(trained) == len(matrices(loaded_model(config)))
    save_output(model, tokenizer, tmp_path / "output", source, config, {})
    assert max(len(one) for one in load_file(tmp_path / "output" / "adapter_model.safetensors").values()) < size
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "output", dtype=model.dtype)
    expected = logits(model, size)
    assert torch.equal(logits(again, size), expected)
    assert install_head(model) is None  # the fast path has a head with single rows
    assert torch.allclose(logits(again.merge_and_unload(), size), expected, atol=2e-2)
    with model.disable_adapter():
        assert torch.equal(logits(model, size), logits(loaded_model(config), size))
    # The next run continues it without naming the tokens again.
    further = settings(add_special_tokens=None, adapter_name_or_path=str(tmp_path / "output"), finetuning_type=method)
    _, words, continued = loaded(further)
    assert words.get_vocab() == tokenizer.get_vocab()
    assert torch.equal(logits(continued, size), expected)
    with pytest.raises(ModelError, match="those of <gull> would stay as they are"):
        loaded(settings(add_tokens="<gull>", adapter_name_or_path=str(tmp_path / "output"), finetuning_type=method))
    card = (tmp_path / "output" / "README.md").read_text()
    assert "base.resize_token_embeddings(len(tokenizer), mean_resizing=False)" in card


@pytest.mark.parametrize("method", ["full", "freeze"])
def test_plain_transformers_loads_a_whole_model_with_new_tokens(settings, loaded, tmp_path, tiny_tokenizer, method):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config, size = settings(finetuning_type=method), len(tiny_tokenizer)
    source, tokenizer, model = with_rows(config, loaded)
    assert all(one.requires_grad for one in matrices(model))
    expected = logits(model, size)
    save_output(model, tokenizer, tmp_path / "output", source, config, {})
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "output")
    assert again.config.vocab_size == len(again.get_input_embeddings().weight) == 64 * math.ceil((size + 2) / 64)
    assert torch.equal(logits(again, size), expected)
    assert AutoTokenizer.from_pretrained(tmp_path / "output").convert_tokens_to_ids(NEW[1]) == size + 1


def test_rows_that_a_model_has_without_tokens_are_used_first(settings, folder, loaded, tmp_path, tiny_tokenizer):
    """As in Qwen's models, whose embedding is larger than their tokenizer: nothing is resized, here or by PEFT."""
    from peft import AutoPeftModelForCausalLM

    size, padded = len(tiny_tokenizer), tmp_path / "padded"
    whole = loaded_model(settings(add_special_tokens=None, finetuning_type="full"))
    old = matrices(whole)[0].detach().clone()
    whole.resize_token_embeddings(size + 5, mean_resizing=False)
    whole.save_pretrained(padded)
    tiny_tokenizer.save_pretrained(padded)
    config = settings(model_name_or_path=str(padded), init_special_tokens="mean_init")
    source, tokenizer, model = loaded(config)
    row = matrices(model.get_base_model())[0][size].float()
    assert torch.allclose(row, old.double().mean(dim=0).float(), atol=2e-3)  # without the rows that have no token
    with_rows_changed(model)
    save_output(model, tokenizer, tmp_path / "output", source, config, {})
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "output", dtype=model.dtype)
    assert len(again.get_input_embeddings().weight) == size + 5
    assert torch.equal(logits(again, size), logits(model, size))


def test_tokens_beside_a_quantized_base(settings, loaded, tmp_path, tiny_tokenizer):
    config, size = settings(quantization_bit=4), len(tiny_tokenizer)
    source, tokenizer, model = with_rows(config, loaded)
    save_output(model, tokenizer, tmp_path / "output", source, config, {})
    _, _, again = loaded(settings(quantization_bit=4, adapter_name_or_path=str(tmp_path / "output")))
    assert torch.equal(logits(again, size), logits(model, size))


def test_embeddings_that_are_trained_whole_have_the_new_rows(settings, loaded, tmp_path, tiny_tokenizer):
    from peft import AutoPeftModelForCausalLM

    config, size = settings(additional_target="embed_tokens,lm_head"), len(tiny_tokenizer)
    source, tokenizer, model = with_rows(config, loaded)
    assert not any("token_adapter" in name for name, _ in model.named_parameters())
    save_output(model, tokenizer, tmp_path / "output", source, config, {})
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "output", dtype=model.dtype)
    assert torch.allclose(logits(again, size), logits(model, size), atol=2e-2)


def test_tokens_that_are_there_already_and_those_of_a_template(settings, folder):
    config = settings(add_special_tokens="<|im_end|>,<fish>", resize_vocab=True, template="llama3")
    model = loaded_model(config)
    assert [token.text for token in model.llf_new_rows.tokens] == ["<fish>", "<|eot_id|>", "<|eom_id|>"]
    text = model.llf_new_rows.text("noise_init")
    assert "The tokenizer has <|im_end|> already" in text
    assert "<fish> (" in text
    tokenizer = load_tokenizer(resolve_model(str(folder), config), config)
    assert tokenizer.decode(tokenizer("a<fish>").input_ids, skip_special_tokens=True) == "a"
    plain = load_tokenizer(resolve_model(str(folder), config), settings(add_special_tokens=None, add_tokens="<fish>"))
    assert plain.decode(plain("a<fish>").input_ids, skip_special_tokens=True) == "a<fish>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        ("- <fish>", "is no mapping"),
        ("<fish>: 3", "describes '<fish>' by 3"),
        ("<fish>: ' '", "describes '<fish>' by ' '"),
        ("<fish>: {", "cannot be read"),
        ("'': the sea", "empty or white space"),
        (f"{'x' * 300}: the sea", "has 300 characters"),
        ("a: " + "x" * (1 << 20), "cannot be read"),
    ],
)
def test_files_of_descriptions_that_are_refused_before_a_start(tmp_path, content, message):
    path = tmp_path / "tokens.yaml"
    if content is not None:
        path.write_text(content)
    keys = {"new_special_tokens_config": str(path), "init_special_tokens": "desc_init"}
    report = check(validate({"dataset": "llf_demo"} | keys), starting=True, seconds=0)
    assert [message in one.message for one in report.problems if one.severity == "error"] == [True]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"add_tokens": ["<fish>", " "]}, "empty or white space"),
        ({"init_special_tokens": "desc_init"}, "`new_special_tokens_config`, which is not set"),
        ({"add_tokens": "<fish>", "finetuning_type": "ia3"}, "does not train the embeddings of new tokens"),
        ({"add_tokens": "<fish>", "finetuning_type": "prompt"}, "does not train the embeddings of new tokens"),
    ],
)
def test_keys_that_are_refused_before_a_start(keys, message):
    report = validate({"dataset": "llf_demo"} | keys)
    assert any(message in one.message for one in report.problems if one.severity == "error")
