"""Normalization layers in float32 inside a bfloat16 model."""

import pytest
import torch

from llf_core.modifiers.precision import upcast_norms
from llf_core.runs import RunReader
from tests.core.acceleration.architectures import tiny


@pytest.mark.parametrize(("name", "count"), [("llama", 5), ("qwen3", 9), ("gemma2", 9), ("gpt2", 10), ("phi3", 5)])
def test_all_norms_and_nothing_else(name, count):
    """Two norms a layer and one at the end; four in Gemma 2; query and key norms in Qwen 3; GPT-2's have biases."""
    model = tiny(name, torch.bfloat16)
    assert len(upcast_norms(model)) == count
    assert {parameter.ndim for parameter in model.parameters() if parameter.dtype == torch.float32} == {1}
    assert upcast_norms(model) == []


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_in_bfloat16_trains(trained, method, fast_path):
    keys = {"finetuning_type": method, "pure_bf16": True, "max_steps": 3, "fast_path": fast_path}
    plain, _ = trained(**keys)
    folder, code = trained(**keys, upcast_layernorm=True)
    assert code == 0
    losses, expected = (RunReader(one).metrics().values("loss") for one in (folder, plain))
    assert losses[0] == pytest.approx(expected[0], rel=0.01)
