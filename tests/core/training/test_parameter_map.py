"""The map of what is trained: counts by hand, equal before the start and in the run."""

import json

import pytest

from llf_core.config import RunConfig
from llf_core.config.adapter_servers import servers_of_config
from llf_core.methods.method import apply_method
from llf_core.models import ModelError, count_parameters, load_model, plan_device, resolve_model
from llf_core.runs import RunReader
from llf_core.runs.listing import trained_json
from llf_core.training.parameter_map import layer_ranges, map_of_config, parameter_map
from tests.core.acceleration.architectures import tiny

METHODS = [
    {},
    {"finetuning_type": "full"},
    {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    {"finetuning_type": "freeze", "use_llama_pro": True, "llama_pro_insert": True, "freeze_trainable_layers": 1},
    {"finetuning_type": "full", "mixture_of_depths": "convert"},
    {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "mixture_of_depths": "convert", "mod_every": 1},
    {"finetuning_type": "oft", "oft_block_size": 8},
    {"lora_target": "q_proj,v_proj"},
    {"additional_target": "norm"},
    {"add_tokens": "<fish>,<ship>"},
    {"use_dora": True, "lora_alpha": 8},
    {"lora_alpha": 8, "use_rslora": True, "lora_init": "pissa"},
]


@pytest.fixture
def config(tiny_model_dir):
    return lambda **keys: RunConfig.load(
        {"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo", "lora_rank": 4} | keys
    )


def by_module(found):
    return {row.module: row for row in found.rows}


@pytest.mark.parametrize("keys", METHODS)
def test_the_map_before_a_start_is_that_of_the_run(config, keys, trained, tmp_path):
    before = map_of_config(config(**keys))
    folder, code = trained(**keys, lora_rank=4, max_steps=1)
    assert code == 0
    (event,) = (event for event in RunReader(folder).events() if event["type"] == "model")
    assert event["map"] == json.loads(json.dumps(before.json()["rows"]))
    assert (event["parameters"], event["trainable"]) == (before.parameters, before.trained)
    shown = trained_json(folder, event)
    assert shown["grid"]["share"].startswith(f"{before.trained:,} of {before.parameters:,} parameters")
    assert shown["servers"] == servers_of_config(config(**keys), tmp_path).json()


def test_an_adapter_by_hand(config):
    rows = by_module(map_of_config(config(lora_target="q_proj,v_proj")))
    assert rows["self_attn.q_proj"].states == {"adapter": [0, 1]}
    assert rows["self_attn.q_proj"].trained == 2 * 4 * (64 + 64)  # two layers, rank 4, 64 to 64
    assert rows["self_attn.v_proj"].trained == 2 * 4 * (64 + 32)
    assert rows["self_attn.q_proj"].parameters == 2 * 64 * 64 + 2 * 4 * 128
    assert rows["mlp.up_proj"].states == {"not reached": [0, 1]}
    assert rows["input_layernorm"].states == {"frozen": [0, 1]}
    assert rows["model.embed_tokens"].states == {"frozen": [-1]}


def test_layers_and_whole_modules(config):
    rows = by_module(map_of_config(config(finetuning_type="freeze", freeze_trainable_layers=1)))
    assert rows["mlp.up_proj"].states == {"frozen": [0], "trained": [1]}
    rows = by_module(map_of_config(config(additional_target="norm")))
    assert rows["model.norm"].states == {"trained": [-1]}
    assert rows["model.norm"].trained == 64


def test_quantized_weights_before_a_start_and_after(config):
    asked = config(quantization_bit=4)
    before = map_of_config(asked)
    source = resolve_model(str(asked.model.model_name_or_path), asked)
    after = parameter_map(apply_method(load_model(source, asked, plan_device(asked)), asked))
    assert before == after
    assert by_module(before)["mlp.up_proj"].quantized
    assert not by_module(before)["input_layernorm"].quantized


@pytest.mark.parametrize("name", ["llama", "qwen3-moe", "gpt2", "gemma2", "lfm2"])
def test_every_parameter_is_counted_once(name):
    model = tiny(name)
    model.requires_grad_(requires_grad=False)
    found = parameter_map(model)
    assert (found.parameters, found.trained) == count_parameters(model)
    assert {state for row in found.rows for state in row.states} == {"frozen"}


def test_experts_that_no_adapter_reaches_are_told():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny("qwen3-moe"), LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]))
    rows = by_module(parameter_map(model))
    assert rows["mlp.experts"].states == {"not reached": [0, 1]}
    model = get_peft_model(
        tiny("qwen3-moe"),
        LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], target_parameters=["experts.down_proj"]),
    )
    assert by_module(parameter_map(model))["mlp.experts"].states == {"adapter": [0, 1]}


def test_runs_of_layers():
    assert layer_ranges([0, 1, 2, 5, 7, 8]) == [(0, 2), (5, 5), (7, 8)]
    assert layer_ranges([]) == []


def test_a_model_whose_architecture_is_not_known_is_told(config, tmp_path):
    with pytest.raises(ModelError):
        map_of_config(config(model_name_or_path=str(tmp_path)))
