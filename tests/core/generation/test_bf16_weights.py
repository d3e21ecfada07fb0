"""Float32 weights that are read as bfloat16: which ones, and that every product stays what it was."""

import pytest
import torch
from torch import nn

from llf_core.generation import prepare_weights, weight_products
from llf_core.generation.batches import Decoder
from llf_core.generation.weight_products import Bf16Matrix, add_bf16_copies, bf16_copy_of
from tests.core.generation.small_models import PROMPTS, by_transformers, continued


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(weight_products, "MIN_VALUES", 0)
    monkeypatch.setattr(weight_products, "BLOCK_VALUES", 700)  # several blocks a matrix, the last of them cut


def stored_narrow(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    return model


def test_products_are_those_of_the_float32_matrix():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(37, 53, generator=generator).bfloat16()
    x, y = torch.randn(53, generator=generator), torch.randn(37, generator=generator)
    expected = matrix.double() @ x.double()
    torch.testing.assert_close(Bf16Matrix(matrix).mv(x).double(), expected, rtol=1e-5, atol=1e-5)
    rows = torch.stack([x, -x, 2 * x])
    expected_rows = rows.double() @ matrix.double().T
    torch.testing.assert_close(Bf16Matrix(matrix).mm(rows).double(), expected_rows, rtol=1e-5, atol=1e-5)
    added = y.clone()
    Bf16Matrix(matrix).add_to(added, x)
    torch.testing.assert_close(added.double(), y.double() + expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_tokens_are_those_of_transformers(models, kind):
    model = stored_narrow(models(kind))
    expected = [by_transformers(model, prompt, 24) for prompt in PROMPTS]
    prepare_weights(model)
    layer = model.model.layers[0]
    assert bf16_copy_of(layer.self_attn.k_proj.weight) is not None
    decoder = Decoder(model)
    assert decoder._forward._fast.blocks[0].qkv._narrow is not None
    assert decoder._forward._fast.head._narrow is not None
    assert [continued(decoder, [prompt], 24)[0] for prompt in PROMPTS] == expected
    assert decoder.plain is None
    assert continued(decoder, PROMPTS, 24) == expected


def test_numbers_that_bfloat16_rounds_stay_as_they_are(models):
    model = stored_narrow(models("llama"))
    with torch.no_grad():
        model.lm_head.weight[3, 5] = 1 / 3
    add_bf16_copies(model)
    assert bf16_copy_of(model.lm_head.weight) is None
    assert bf16_copy_of(model.model.layers[0].mlp.down_proj.weight) is not None


def test_a_changed_weight_is_read_itself(models):
    model = stored_narrow(models("llama"))
    prepare_weights(model)
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
    assert bf16_copy_of(model.lm_head.weight) is None
    assert continued(Decoder(model), PROMPTS[:1], 12) == [by_transformers(model, PROMPTS[0], 12)]


def test_copies_take_no_more_than_half_of_the_free_memory(monkeypatch):
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Linear(16, 8, bias=False))
    stored_narrow(model)
    monkeypatch.setattr("llf_core.models.step_forecast.free_memory", lambda _: 2 * 300)
    assert add_bf16_copies(model) == 256  # 128 numbers; those of the second would be 256 more
    assert [bf16_copy_of(layer.weight) is not None for layer in model] == [True, False]


def test_weights_that_were_made_in_inference_mode_are_asked_for_no_copy():
    with torch.inference_mode():
        weight = nn.Linear(8, 16).weight
    assert bf16_copy_of(weight) is None


def test_weights_of_other_dtypes_have_none():
    model = nn.Sequential(nn.Linear(8, 16, dtype=torch.bfloat16), nn.Linear(16, 8, dtype=torch.float64))
    assert add_bf16_copies(model) == 0


def test_weights_of_inference_mode_have_no_copy():
    with torch.inference_mode():
        model = stored_narrow(nn.Sequential(nn.Linear(64, 64, bias=False)))
    assert add_bf16_copies(model) == 0
    assert bf16_copy_of(model[0].weight) is None
