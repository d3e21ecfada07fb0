import pytest
import torch
from peft import LoraConfig, get_peft_model

from llf_core.generation.batches import Decoder
from llf_core.generation.weight_products import JoinedLinear, join_adapters, join_weights, read_linear
from tests.core.generation.small_models import PROMPTS, by_transformers, continued


def adapted(model, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = get_peft_model(model, LoraConfig(**({"r": 4, "lora_alpha": 8} | settings)))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


@pytest.mark.parametrize("ranks", [{}, {"v_proj": 3}])  # the scaling is alpha / rank
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_tokens_are_those_of_the_adapted_model_and_no_weight_changes(models, kind, targets, joined, ranks):
    model = models(kind)
    base = by_transformers(model, PROMPTS[0], 16)
    if joined:
        join_weights(model)
    model = adapted(model, target_modules=targets, rank_pattern=ranks)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = [by_transformers(model, prompt, 16) for prompt in PROMPTS]
    if joined:
        assert join_adapters(model) == (4 if targets == "all-linear" else 2)  # groups of two layers
        assert [by_transformers(model, prompt, 16) for prompt in PROMPTS] == expected
    decoder = Decoder(model)
    assert [continued(decoder, [prompt], 16)[0] for prompt in PROMPTS] == expected
    assert continued(decoder, PROMPTS, 16) == expected
    assert expected[0] != base
    assert decoder.plain is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("alpha", "scaling"), [(8, 2.0), (3, 0.75)])
def test_joined_adapters_are_multiplied_without_copies(models, dtype, alpha, scaling):
    model = adapted(models("qwen2"), target_modules="all-linear", lora_alpha=alpha).to(dtype)
    join_adapters(model)
    block = model.get_base_model().model.layers[1]
    attention, mlp = block.self_attn, block.mlp
    groups = [[attention.q_proj, attention.k_proj, attention.v_proj], [mlp.gate_proj, mlp.up_proj], [mlp.down_proj]]
    random = torch.Generator().manual_seed(0)
    for parts in groups:
        product = JoinedLinear([read_linear(part) for part in parts])
        for part in parts:
            kept = {one.untyped_storage().data_ptr() for one in (product._down, product._up)}
            assert {part.lora_A["default"].weight.untyped_storage().data_ptr()} <= kept
            assert {part.lora_B["default"].weight.untyped_storage().data_ptr()} <= kept
        x = torch.randn(3, parts[0].in_features, generator=random).to(dtype)
        exact = []
        for part in parts:
            down, up = part.lora_A["default"].weight.double(), part.lora_B["default"].weight.double()
            y = x.double() @ part.weight.double().T + scaling * (x.double() @ down.T @ up.T)
            exact.append(y if part.bias is None else y + part.bias.double())
        exact = torch.cat(exact, dim=-1)
        size = exact.abs().max() * torch.finfo(dtype).eps * 4
        assert (product(x).double() - exact).abs().max() <= size
        assert (product(x[0]).double() - exact[0]).abs().max() <= size


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
