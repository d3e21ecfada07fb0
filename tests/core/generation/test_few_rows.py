"""Products of few rows are those of `F.linear`, and a model computes the same with them."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from llf_core.generation.weight_products import MAX_ROWS, few_rows_linear, speed_up_few_rows


@pytest.mark.parametrize("rows", [(1,), (2,), (2, 5), (MAX_ROWS,), (MAX_ROWS + 1,), (0,)])
@pytest.mark.parametrize("bias", [False, True])
def test_products_are_those_of_float64(rows, bias):
    torch.manual_seed(0)
    x, weight = torch.randn(*rows, 48).bfloat16(), torch.randn(40, 48).bfloat16()
    added = torch.randn(40).bfloat16() if bias else None
    y = few_rows_linear(x, weight, added)
    exact = F.linear(x.double(), weight.double(), None if added is None else added.double())
    assert y.shape == exact.shape
    assert torch.allclose(y.double(), exact, atol=0.02, rtol=0.02)


def test_float32_is_left_to_torch():
    x, weight = torch.randn(4, 48), torch.randn(40, 48)
    assert torch.equal(few_rows_linear(x, weight), F.linear(x, weight))


def test_a_model_in_bfloat16_is_as_near_to_the_exact_logits_as_before(models):
    model = models("llama").bfloat16().eval()
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad():
        before = model(tokens).logits.double()
        exact = copy.deepcopy(model).double()(tokens).logits
        changed = speed_up_few_rows(model)
        after = model(tokens).logits.double()
    assert changed == 7 * model.config.num_hidden_layers + 1
    assert (after - exact).abs().mean() < 1.5 * (before - exact).abs().mean()


def test_a_model_in_float32_is_left_as_it_is(models):
    assert speed_up_few_rows(models("llama")) == 0
