"""Batch normalization of frozen encoders: an example does not depend on its batch, and the statistics stay."""

import copy

import torch
from torch import nn
from transformers import ParakeetEncoder, ParakeetEncoderConfig

from llf_core.models.gradient_checkpointing import keep_frozen_statistics


def layers():
    return nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 2, 1), nn.BatchNorm1d(2))


def statistics(model):
    return {name: value.clone() for name, value in model.named_buffers()}


def test_a_frozen_layer_computes_as_in_evaluation_and_a_trained_one_learns():
    model = layers()
    model[:2].requires_grad_(requires_grad=False)
    before, alone = statistics(model), model.eval()[:2](torch.ones(1, 4, 8))
    assert keep_frozen_statistics(model) == 1
    for one in (model, copy.deepcopy(model)):
        one.train()
        assert (one.training, one[1].training, one[4].training) == (True, False, True)
        batch = torch.cat([torch.ones(1, 4, 8), torch.randn(3, 4, 8)])
        assert torch.allclose(one[:2](batch)[:1], alone, atol=1e-6)
        one(batch)
        after = statistics(one)
        assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("1."))
        assert not torch.equal(after["4.running_mean"], before["4.running_mean"])


def test_an_encoder_of_speech_keeps_its_statistics():
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = ParakeetEncoder(ParakeetEncoderConfig(**sizes, subsampling_conv_channels=8)).requires_grad_(
        requires_grad=False
    )
    assert keep_frozen_statistics(model) >= 1
    before = statistics(model)
    model.train()
    model(torch.randn(2, 64, 80))
    assert all(torch.equal(value, before[name]) for name, value in statistics(model).items())
    plain = copy.deepcopy(model)
    for module in plain.modules():
        vars(module).pop("train", None)
    plain.train()
    plain(torch.randn(2, 64, 80))
    assert any(not torch.equal(value, before[name]) for name, value in statistics(plain).items())
