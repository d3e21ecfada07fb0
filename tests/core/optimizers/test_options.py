"""What a config says of optimizers: switches, names of transformers, what cannot be combined, what does not fit."""

import math
from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM

from llf_core.config import ConfigError, RunConfig, validate
from llf_core.config.declaration import OptimizerDeclaration
from llf_core.config.name_checks import check
from llf_core.config.registry import base_optimizer_of, declared, optimizer_of
from llf_core.config.rules import optimization as rules
from llf_core.config.rules.conditions import optimizer_options
from llf_core.optimizers.optimizer import OptimizerError, build_optimizer

FULL = {"dataset": "llf_demo", "finetuning_type": "full"}


@pytest.fixture(autouse=True)
def cache_of_the_compiler(monkeypatch, tmp_path):
    """torch sets it when it is first asked for."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


def said(severity="error", **values):
    return [one.message for one in validate(FULL | values).problems if one.severity == severity]


SWITCHES = {
    "use_galore": "galore", "use_apollo": "apollo", "use_badam": "badam", "use_adam_mini": "adam_mini",
    "use_muon": "muon",
}  # fmt: skip


@pytest.mark.parametrize(("switch", "name"), SWITCHES.items())
def test_a_switch_and_a_name_select_the_same(switch, name):
    by_switch, by_name = (RunConfig.load(FULL | keys) for keys in ({switch: True}, {"optim": name}))
    assert optimizer_of(by_switch).name == optimizer_of(by_name).name == name
    assert base_optimizer_of(by_switch).name == "adamw_torch_fused"
    assert not validate(FULL | {switch: True}).problems


def test_radam_needs_a_long_average():
    """At β₂ 0.6 the longest average is 4, and RAdam's variance is known above 4 only."""
    (message,) = said(optim="schedule_free_radam", adam_beta2=0.6)
    assert message.startswith("`adam_beta2` is 0.6, with which RAdam never knows the variance")
    assert not said(optim="schedule_free_radam", adam_beta2=0.61)
    assert not said(optim="schedule_free_adamw", adam_beta2=0.6)


def test_optim_names_the_base_beside_a_switch():
    config = RunConfig.load(FULL | {"use_galore": True, "optim": "adafactor"})
    assert (optimizer_of(config).name, base_optimizer_of(config).name) == ("galore", "adafactor")
    (message,) = said(use_muon=True, optim="lion_8bit")
    assert message.startswith(
        "`optim` is lion_8bit, which Muon (`use_muon`) is not built on. Expected adamw_torch_fused"
    )


def test_two_switches_are_an_error_with_a_fix_for_each():
    report = validate(FULL | {"use_galore": True, "use_badam": True})
    (problem,) = [one for one in report.problems if one.severity == "error"]
    assert "`use_badam` and `use_galore` each select an optimizer, and a run has one." in problem.message
    assert [dict(fix.changes) for fix in problem.fixes] == [{"use_galore": None}, {"use_badam": None}]


@pytest.mark.parametrize("switch", ["use_galore", "use_apollo", "use_badam"])
def test_adapters_are_refused(switch):
    (message,) = said(**{switch: True}, finetuning_type="lora")
    assert "is for the model's own weights, and finetuning_type lora trains an adapter instead" in message
    assert not said(use_muon=True, finetuning_type="lora")


LAYERWISE = ({"use_galore": True, "galore_layerwise": True}, {"optim": "lomo"}, {"optim": "adalomo"})


@pytest.mark.parametrize("keys", LAYERWISE)
def test_what_layerwise_updates_exclude(keys):
    (message,) = said(**keys, gradient_accumulation_steps=4)
    assert "`gradient_accumulation_steps` is 4. Layer-wise updates apply each gradient" in message
    (message,) = said(**keys, fp16=True)
    assert "fp16 scales the loss" in message
    assert any("`max_grad_norm` (1) has no effect" in one for one in said("note", **keys))
    assert not any("max_grad_norm" in one for one in said("note", **keys, max_grad_norm=0))
    assert not said(use_galore=True, gradient_accumulation_steps=4)


def test_names_of_transformers_are_read_as_llama_factorys_keys_with_their_defaults():
    config = RunConfig.load(FULL | {"optim": "galore_adamw_8bit_layerwise", "optim_target_modules": "all-linear"})
    shown = {key: value for key, value in config.flat().items() if "galore" in key or key == "optim"}
    assert shown == {
        "optim": "adamw_8bit", "use_galore": True, "galore_rank": 128, "galore_scale": 0.25, "galore_layerwise": True,
    }  # fmt: skip
    config = RunConfig.load(
        FULL | {"optim": "apollo_adamw", "optim_args": "rank=1,scale_type=tensor", "optim_target_modules": ["mlp"]}
    )
    assert (config.get("apollo_rank"), config.get("apollo_scale_type")) == (1, "tensor")
    assert (config.get("apollo_target"), config.get("apollo_scale")) == (("mlp",), 1.0)
    assert any("optim_args" in one for one in said(optim="galore_adamw", optim_args=5))
    (message,) = said(optim="galore_adamw", optim_args="rang=1")
    assert "The optimizer galore_adamw has no option `rang` (`optim_args`). Expected `rank`" in message
    keys = {"optim": "galore_adamw", "optim_args": "rank=64", "optim_target_modules": ["mlp"]}
    assert not said(**keys, galore_rank=64, galore_target="mlp")
    (message,) = said(**keys, galore_rank=8)
    assert message == "`rank` in `optim_args` and `galore_rank: 8` set the same. Expected one of them."
    (message,) = said(**keys, galore_target="attn")
    assert message == "`optim_target_modules` and `galore_target: attn` set the same. Expected one of them."
    (message,) = said(optim="galore_adamw", use_galore=False)
    assert message == "`optim: galore_adamw` and `use_galore: false` set the same. Expected one of them."
    (message,) = said(optim="galore_adamw", optim_args="rank=8", galore_rank=None)
    assert message.startswith("GaLore rank (`galore_rank`) is null.")
    (message,) = said(optim="galore_adamw_layerwise", use_galore="yes", galore_layerwise="no")
    assert message == "`optim: galore_adamw_layerwise` and `galore_layerwise: no` set the same. Expected one of them."
    (message,) = said(optim="galore_adamw", optim_args="rank")
    assert "Expected `name=value`" in message
    named = FULL | {"optim": "galore_adamw", "optim_args": "rank=64"}
    assert RunConfig.load(named, ["galore_rank=8"]).get("galore_rank") == 8
    assert not RunConfig.load(named, ["use_galore=false"]).get("use_galore")
    assert not validate(named, ["galore_rank=8", "optim_args=rank=64"]).ok
    for rank in ("inf", "nan"):
        assert any("(`galore_rank`) is " in one for one in said(optim="galore_adamw", optim_args=f"rank={rank}"))


@pytest.mark.parametrize(
    "changes",
    [
        {"optim": "apollo_adamw", "optim_args": "rank=8"},
        {"optim": "apollo_adamw_layerwise", "optim_args": "scale=2"},
        {"optim": "galore_adamw", "optim_args": "rank=8", "optim_target_modules": "all"},
    ],
)
def test_a_changed_name_of_an_optimizer_replaces_what_the_earlier_one_meant(changes):
    """`replace` and overrides give what the changed file gives, though the config has the keys that its names mean."""
    named = FULL | {"optim": "apollo_adamw_layerwise", "optim_args": "rank=4", "optim_target_modules": ["mlp"]}
    config, expected = RunConfig.load(named), RunConfig.load(named | changes)
    assert config.replace(**changes) == expected
    assert RunConfig.load(config, [f"{key}={value}" for key, value in changes.items()]) == expected
    assert config.replace(optim="apollo_adamw").get("apollo_rank") == 4
    with pytest.raises(ConfigError, match="`rank` in `optim_args` and `apollo_rank: 2` set the same"):
        config.replace(optim="apollo_adamw", optim_args="rank=8", apollo_rank=2)


def test_every_name_of_transformers_is_read():
    from transformers.training_args import OptimizerNames

    for name in (one.value for one in OptimizerNames if one.value.startswith(("galore", "apollo"))):
        config = RunConfig.load(FULL | {"optim": name})
        assert optimizer_of(config).name == name.partition("_")[0]
        assert optimizer_of(config).layerwise(config) == name.endswith("layerwise")


def test_a_missing_package_is_told_with_its_command(monkeypatch):
    def without_torchao(name):
        return None if name == "torchao" else find_spec(name)

    monkeypatch.setattr(rules, "find_spec", without_torchao)
    (message,) = said(optim="adamw_torch_4bit")
    assert message == ("AdamW, 4-bit state (torchao) needs torchao, which is not installed. Run: pip install torchao.")
    assert not said(optim="adamw_torch")


MISFITS = [
    (
        {"use_galore": True, "galore_target": "mlp,attention"},
        "galore_target",
        "'attention', and no matrix with that name",
    ),
    (
        {"use_apollo": True, "apollo_target": ","},
        "apollo_target",
        "is '', and no matrix with that name is trained",
    ),
    ({"use_galore": True, "galore_rank": 65}, "galore_rank", "`galore_rank` is 65, and "),
    (
        {"use_galore": True, "galore_rank": 33, "galore_target": "k_proj"},
        "galore_rank",
        "is 32 x 64. Expected a rank of ",
    ),
    ({"use_apollo": True, "apollo_rank": 512}, "apollo_rank", "`apollo_rank` is 512, and "),
    (
        {"use_badam": True, "badam_start_block": 2},
        "badam_start_block",
        "is 2, and 2 layers are trained. Expected 0 to 1.",
    ),
]


@pytest.mark.parametrize(("keys", "key", "message"), MISFITS)
def test_what_does_not_fit_is_told_before_the_start_and_by_the_trainer(tiny_model_dir, keys, key, message):
    asked = FULL | {"model_name_or_path": str(tiny_model_dir)} | keys
    report = check(validate(asked), starting=True, seconds=0)
    (problem,) = [one for one in report.problems if one.severity == "error"]
    assert problem.key == key
    assert message in problem.message
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    with pytest.raises(OptimizerError) as caught:
        build_optimizer(model, RunConfig.load(asked), groups_of(model))
    assert message in str(caught.value)


def test_several_processes_are_refused_where_they_would_disagree(tiny_model_dir, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    for keys in ({"use_badam": True}, {"optim": "lomo"}):
        with pytest.raises(OptimizerError, match="does not train in several processes as configured"):
            build_optimizer(model, RunConfig.load(FULL | keys), groups_of(model))
    assert build_optimizer(model, RunConfig.load(FULL | {"use_galore": True}), groups_of(model)) is not None


def groups_of(model):
    parameters = [one for one in model.parameters() if one.requires_grad]
    return [{"params": parameters, "weight_decay": 0.0}]


STATES = {
    "galore": {"use_galore": True, "galore_rank": 8},
    "galore full": {"use_galore": True, "galore_rank": 8, "galore_proj_type": "full"},
    "galore reverse": {"use_galore": True, "galore_rank": 8, "galore_proj_type": "reverse_std"},
    "galore 8-bit": {"use_galore": True, "galore_rank": 8, "optim": "adamw_8bit"},
    "galore adafactor": {"use_galore": True, "galore_rank": 8, "optim": "adafactor"},
    "apollo": {"use_apollo": True, "apollo_rank": 8},
    "apollo svd": {"use_apollo": True, "apollo_rank": 8, "apollo_proj": "svd"},
    "badam": {"use_badam": True},
    "badam ratio": {"use_badam": True, "badam_mode": "ratio"},
    "badam scatter": {"use_badam": True, "badam_mode": "ratio", "badam_mask_mode": "scatter"},
    "adam_mini": {"use_adam_mini": True},
    "muon": {"use_muon": True},
    "lomo": {"optim": "lomo"},
    "adalomo": {"optim": "adalomo"},
    "schedule_free_adamw": {"optim": "schedule_free_adamw"},
    "schedule_free_sgd": {"optim": "schedule_free_sgd"},
    "stable_adamw": {"optim": "stable_adamw"},
    "grokadamw": {"optim": "grokadamw"},
    "adamw_anyprecision": {"optim": "adamw_anyprecision", "optim_args": "momentum_dtype=bfloat16"},
}


@pytest.mark.parametrize(
    ("keys", "number"),
    [
        ({"optim": "sgd"}, 0),
        ({"optim": "sgd", "optim_args": "momentum=0.9"}, 1),
        ({"optim": "rmsprop"}, 1),
        ({"optim": "rmsprop", "optim_args": "momentum=0.9,centered=true"}, 3),
    ],
)
def test_the_forecast_of_torchs_own_optimizers_counts_what_their_options_keep(keys, number):
    config = RunConfig.load(FULL | keys)
    options = optimizer_options(config.optimizer.optim_args)
    weights = torch.nn.Parameter(torch.ones(64, 64))
    optimizer = {"sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}[keys["optim"]]([weights], lr=1e-3, **options)
    weights.grad = torch.ones_like(weights)
    optimizer.step()
    kept = [one for one in optimizer.state[weights].values() if isinstance(one, torch.Tensor) and one.dim()]
    assert len(kept) == number
    forecast = optimizer_of(config).memory_for(config, {"weights": (64, 64)})
    assert forecast.state_bytes == sum(one.numel() * 4 for one in kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("case", STATES)
def test_the_forecast_of_state_is_what_is_kept(tiny_model_dir, case, dtype):
    """After a step, to 3 %: what is smaller than a row of a matrix is not counted."""
    config = RunConfig.load(FULL | STATES[case])
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=dtype)
    shapes = {name: tuple(one.shape) for name, one in model.named_parameters()}
    optimizer = build_optimizer(model, config, groups_of(model))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    size = sum(one.numel() * one.element_size() for one in kept)
    forecast = optimizer_of(config).memory_for(config, shapes, dtype.itemsize)
    assert forecast.state_bytes == pytest.approx(size, rel=0.03, abs=1024)
    trained = [math.prod(shapes[name]) for name, one in model.named_parameters() if one.requires_grad]
    whole = optimizer_of(config).layerwise(config)
    assert forecast.gradients == (max(trained) if whole else sum(trained))


def test_every_optimizer_has_a_line_for_the_list():
    for one in declared(OptimizerDeclaration).values():
        assert one.line.startswith(f"{one.label}: ")
        assert one.summary.endswith(".")
        assert len(one.summary) <= 200
