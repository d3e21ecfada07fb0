"""Training from random weights: a folder with a config and a tokenizer is enough."""

import math
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from llf_core.config import RunConfig, validate
from llf_core.evaluation.loaded_targets import load_base_and_tuned
from llf_core.models import ModelError, load_model, plan_device, resolve_model
from llf_core.runs import RunReader
from tests.attempts import data_file, make_run, settings, trained

__all__ = ["data_file", "make_run", "settings", "trained"]


@pytest.fixture
def bare(tiny_model_dir, tmp_path):
    """The tiny model without its weights."""
    folder = tmp_path / "bare"
    shutil.copytree(tiny_model_dir, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def loaded(folder, **keys):
    config = RunConfig.load(
        {
            "model_name_or_path": str(folder),
            "dataset": "llf_demo",
            "train_from_scratch": True,
            "finetuning_type": "full",
        }
        | keys
    )
    return load_model(resolve_model(str(folder), config), config, plan_device(config))


def test_the_seed_alone_decides_the_weights(bare, tiny_model_dir):
    first = loaded(bare).state_dict()
    torch.rand(7)
    again, other = loaded(tiny_model_dir).state_dict(), loaded(bare, seed=1).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    key = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(first[key], other[key])
    assert first[key].dtype == torch.float32
    assert first[key].std().item() == pytest.approx(0.02, rel=0.1)  # `initializer_range` of a Llama
    stored = AutoModelForCausalLM.from_pretrained(tiny_model_dir).state_dict()
    assert not torch.equal(first[key], stored[key])


def test_the_generator_of_the_run_is_left_alone(bare):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    loaded(bare)
    assert torch.equal(torch.rand(3), expected)


def test_a_run_begins_with_the_loss_of_chance_and_learns(trained, bare):
    folder, code = trained(
        model_name_or_path=str(bare), train_from_scratch=True, finetuning_type="full", max_steps=20, learning_rate=1e-2
    )
    assert code == 0
    losses = RunReader(folder).metrics().values("loss")
    vocabulary = AutoModelForCausalLM.from_pretrained(folder.output).config.vocab_size
    assert losses[0] == pytest.approx(math.log(vocabulary), abs=0.2)
    assert losses[-3:].mean() < 0.8 * losses[0]


def test_the_result_of_a_run_is_compared_with_its_learned_weights(trained, bare):
    folder, code = trained(
        model_name_or_path=str(bare), train_from_scratch=True, finetuning_type="full", max_steps=1, learning_rate=1e-2
    )
    assert code == 0
    key = "model.layers.0.mlp.up_proj.weight"
    models = load_base_and_tuned(folder, RunConfig.load(folder.config))
    weights = {of: model.state_dict()[key].float().clone() for of, model, _ in models}
    saved = AutoModelForCausalLM.from_pretrained(folder.output).state_dict()[key].float()
    torch.testing.assert_close(weights["tuned"], saved, rtol=1e-2, atol=1e-3)
    assert (weights["base"] - saved).abs().max() > 5e-3


def test_without_the_key_weights_are_expected(bare):
    with pytest.raises(ModelError, match="has no weights"):
        loaded(bare, train_from_scratch=False)


def test_what_random_weights_exclude_is_told():
    def told(**keys):
        report = validate({"model_name_or_path": "m", "dataset": "llf_demo", "train_from_scratch": True} | keys)
        return [(problem.severity, problem.key) for problem in report.violations]

    assert told(finetuning_type="full") == []
    assert ("error", "train_from_scratch") in told(finetuning_type="lora")
    assert ("error", "train_from_scratch") in told(finetuning_type="lora", quantization_bit=4)
