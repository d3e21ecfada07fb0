import torch

from llf_core.models import count_parameters


def test_every_parameter_is_trained_in_float32(tuned, tiny_tokenizer):
    # a layer: q and o 64·64, k and v 64·32, three of 64·128, two norms of 64
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64
    expected = len(tiny_tokenizer) * 64 + 2 * layer + 64
    model = tuned(finetuning_type="full")
    assert count_parameters(model) == (expected, expected)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_float32_checkpoint_loses_nothing_where_the_plan_is_bfloat16(tuned, tiny_tokenizer):
    from tests.tiny import tiny_llama

    model = tuned(finetuning_type="full", bf16=True)
    original = tiny_llama(tiny_tokenizer)
    assert torch.equal(model.model.embed_tokens.weight, original.model.embed_tokens.weight)


def test_pure_bf16_keeps_every_weight_in_bfloat16(tuned):
    model = tuned(finetuning_type="full", pure_bf16=True)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(parameter.requires_grad for parameter in model.parameters())
