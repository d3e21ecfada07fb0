import pytest
import torch
from peft import LoraConfig, get_peft_model

from llf_core.generation.decoder import Decoder
from llf_core.generation.weight_products import join_weights
from tests.core.generation.small_models import PROMPTS, by_transformers, continued


def adapted(model, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, **settings))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_tokens_are_those_of_the_adapted_model_and_no_weight_moves(models, kind, targets, joined):
    model = models(kind)
    base = by_transformers(model, PROMPTS[0], 16)
    if joined:
        join_weights(model)
    model = adapted(model, target_modules=targets)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = [by_transformers(model, prompt, 16) for prompt in PROMPTS]
    decoder = Decoder(model)
    assert [continued(decoder, [prompt], 16)[0] for prompt in PROMPTS] == expected
    assert continued(decoder, PROMPTS, 16) == expected
    assert expected[0] != base
    assert decoder.plain is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_adapter_that_is_off_is_off(models):
    model = models("llama")
    base = by_transformers(model, PROMPTS[0], 16)
    model = adapted(model, target_modules="all-linear")
    with model.disable_adapter():
        decoder = Decoder(model)
        assert continued(decoder, [PROMPTS[0]], 16) == [base]
        assert decoder.plain is None
    assert continued(Decoder(model), [PROMPTS[0]], 16) != [base]


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_bias": True}])
def test_variants_of_lora_go_through_the_models_own_forward(models, settings):
    model = adapted(models("qwen2"), target_modules=["q_proj", "k_proj"], **settings)
    expected = by_transformers(model, PROMPTS[0], 12)
    decoder = Decoder(model)
    assert continued(decoder, [PROMPTS[0]], 12) == [expected]
    assert decoder.plain is not None
