import pytest
import torch

from llf_core.config import RunConfig, validate
from llf_core.config.declarations.methods.freeze import trained_layers
from llf_core.config.name_checks import check
from llf_core.estimate import trained_parameters, weight_shapes
from llf_core.methods.adapter_targets import block_modules, block_of
from llf_core.models import ModelError, count_parameters

LAYER = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("asked", "layer"), [(1, "1"), (-1, "0")])
def test_last_or_first_layer(tuned, asked, layer):
    model = tuned(finetuning_type="freeze", freeze_trainable_layers=asked)
    assert count_parameters(model)[1] == LAYER
    assert {name.split(".")[2] for name in trained(model)} == {layer}


def test_named_modules_and_modules_outside_the_layers(tuned):
    model = tuned(
        finetuning_type="freeze",
        freeze_trainable_layers=1,
        freeze_trainable_modules="q_proj,mlp",
        freeze_extra_modules="norm",
    )
    mlp = {f"model.layers.1.mlp.{part}_proj.weight" for part in ("up", "gate", "down")}
    assert trained(model) == mlp | {"model.layers.1.self_attn.q_proj.weight", "model.norm.weight"}


@pytest.mark.parametrize(
    "keys",
    [
        {"freeze_trainable_modules": "q_proj,mlp", "freeze_extra_modules": "norm"},
        {"freeze_trainable_layers": -1, "freeze_trainable_modules": "input_layernorm"},
        {"freeze_extra_modules": "embed_tokens"},
    ],
)
def test_the_trained_modules_are_counted_before_the_start(keys, tuned, tiny_model_dir):
    keys = {"finetuning_type": "freeze", "freeze_trainable_layers": 1} | keys
    config = RunConfig.load({"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo"} | keys)
    assert trained_parameters(config, weight_shapes(str(tiny_model_dir))) == count_parameters(tuned(**keys))[1]


def test_frozen_weights_of_a_bfloat16_model_stay_bfloat16(tuned, tiny_model_dir, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "half")
    model = tuned(
        model_name_or_path=str(tmp_path / "half"), finetuning_type="freeze", freeze_trainable_layers=1, bf16=True
    )
    dtypes = {parameter.requires_grad: parameter.dtype for parameter in model.parameters()}
    assert dtypes == {False: torch.bfloat16, True: torch.float32}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"freeze_trainable_layers": 3}, ("freeze_trainable_layers is 3", "has 2 layers", "1 to 2")),
        ({"freeze_trainable_layers": 0}, ("freeze_trainable_layers is 0",)),
        ({"freeze_trainable_modules": "query"}, ("no query", "q_proj", "mlp", "input_layernorm")),
        ({"freeze_extra_modules": "wte"}, ("freeze_extra_modules", "no wte", "embed_tokens, norm")),
    ],
)
def test_what_the_model_does_not_have_is_named_with_the_choices(tuned, keys, words):
    with pytest.raises(ModelError) as error:
        tuned(finetuning_type="freeze", **keys)
    assert all(word in str(error.value) for word in words)


def test_layers_are_counted_from_the_end_or_the_start():
    def layers(number, **more):
        keys = {"model_name_or_path": "m", "dataset": "llf_demo", "finetuning_type": "freeze"}
        return list(trained_layers(RunConfig.load(keys | {"freeze_trainable_layers": number} | more), 6))

    assert layers(2) == [4, 5]
    assert layers(-2) == [0, 1]
    assert layers(2, use_llama_pro=True) == [2, 5]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.11.mlp.up_proj.weight", (11, "mlp.up_proj.weight")),
        ("transformer.h.0.ln_1.bias", (0, "ln_1.bias")),
        ("model.layers.3.mlp.experts.7.up_proj.weight", (3, "mlp.experts.7.up_proj.weight")),
        ("model.embed_tokens.weight", None),
    ],
)
def test_a_parameter_name_is_split_at_its_block(name, expected):
    assert block_of(name) == expected


def test_numbers_of_experts_are_no_module_names():
    assert block_modules(["model.layers.3.mlp.experts.7.up_proj.weight"]) == {"mlp", "experts", "up_proj"}


@pytest.mark.parametrize(
    ("keys", "nearest"),
    [
        ({"freeze_trainable_layers": 3}, 2),
        ({"freeze_trainable_layers": -3}, 2),
        ({"freeze_trainable_layers": 0}, 1),
        ({"freeze_trainable_layers": 5, "use_llama_pro": True}, 2),
    ],
)
def test_layers_that_are_not_there_are_told_before_the_start(tiny_model_dir, tmp_path, keys, nearest):
    keys = {"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo", "finetuning_type": "freeze"} | keys
    report = check(validate(keys), runs=[], home=tmp_path, starting=True)
    (problem,) = (one for one in report.problems if one.severity == "error")
    assert problem.key == "freeze_trainable_layers"
    assert "layers" in problem.message
    assert dict(problem.fixes[0].changes) == {"freeze_trainable_layers": nearest}
