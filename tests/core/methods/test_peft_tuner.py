"""The adapters of PEFT beside LoRA: their targets, their size and what is refused before the start."""

import dataclasses
from enum import Enum

import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import AutoModelForCausalLM

from llf_core.config import RunConfig, validate
from llf_core.config.name_checks import check
from llf_core.config.peft_tuners import check_options, tuner, tuner_names
from llf_core.config.registry import method_of
from llf_core.estimate import trained_parameters, weight_shapes
from llf_core.methods.method import apply_method
from llf_core.methods.peft_tuner import PeftTuner
from llf_core.models import ModelError, count_parameters
from tests.core.models.tiny_configs import tiny_config

# inputs of the tiny Llama's seven linears of two layers: 6 of 64 and one of 128; their outputs: 64, 32, 32, 64, 128,
# 128, 64
INPUTS, OUTPUTS = 2 * (6 * 64 + 128), 2 * (3 * 64 + 2 * 32 + 2 * 128)
COUNTS = {
    "lora, with DoRA": (
        {"finetuning_type": "lora", "lora_rank": 4, "use_dora": True},
        4 * (INPUTS + OUTPUTS) + OUTPUTS,
    ),
    "oft": ({"oft_block_size": 16}, INPUTS * 15 // 2),
    "oft, by blocks": (
        {"finetuning_type": "oft", "oft_block_size": 0, "oft_rank": 8},
        2 * (6 * 64 * 7 + 128 * 15) // 2,
    ),
    "boft": ({"boft_block_size": 8}, INPUTS * 8 + OUTPUTS),
    "ia3": ({}, 2 * (32 + 32 + 128)),
    "ia3, with targets": ({"finetuning_type": "ia3", "ia3_target": "q_proj,down_proj"}, 2 * (64 + 128)),
    "ia3, all scaled at the output": (
        {"finetuning_type": "ia3", "ia3_target": "q_proj,down_proj", "ia3_feedforward": ""},
        2 * (64 + 64),
    ),
    "ia3, of all": ({"finetuning_type": "ia3", "ia3_target": "all"}, OUTPUTS),
    "vera, by paths": ({"finetuning_type": "vera", "vera_rank": 16, "vera_target": "self_attn.q_proj"}, 2 * (16 + 64)),
    "vera": ({"vera_rank": 16}, 2 * 7 * 16 + OUTPUTS),
    "adalora": ({"adalora_rank": 4, "adalora_initial_rank": 6}, 6 * (INPUTS + OUTPUTS + 2 * 7)),
    "prompt": ({"prompt_tokens": 5}, 5 * 64),
    "prefix": ({"prefix_tokens": 5}, 5 * 2 * 2 * 32),
}


def problems(**keys):
    """Of a config that names the tiny model, by key."""
    return {one.key: one for one in check(validate({"dataset": "llf_demo"} | keys), seconds=0).problems}


@pytest.mark.parametrize("case", COUNTS)
def test_the_trained_parameters_are_counted_before_the_start(case, tuned, tiny_model_dir):
    keys, expected = COUNTS[case]
    keys = {"finetuning_type": case} | keys
    assert count_parameters(tuned(**keys))[1] == expected
    config = RunConfig.load({"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo"} | keys)
    assert trained_parameters(config, weight_shapes(str(tiny_model_dir))) == expected


def saved(architecture, tokenizer, tmp_path):
    """The folder of a tiny model, and the model."""
    folder, model = str(tmp_path / architecture), AutoModelForCausalLM.from_config(tiny_config(architecture))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("keys", [{"use_dora": True}, {"finetuning_type": "vera", "vera_rank": 4}])
def test_outputs_of_the_transposed_weights_of_gpt2_are_counted_as_peft_has_them(keys, tuned, tiny_tokenizer, tmp_path):
    folder, _ = saved("gpt2", tiny_tokenizer, tmp_path)
    config = RunConfig.load({"model_name_or_path": folder, "dataset": "llf_demo"} | keys)
    found = count_parameters(tuned(model_name_or_path=folder, **keys))[1]
    assert trained_parameters(config, weight_shapes(folder)) == found


@pytest.mark.parametrize("keys", [{}, {"use_dora": True}])
def test_an_adapter_of_experts_is_counted_as_peft_makes_it(keys, tuned, tiny_tokenizer, tmp_path):
    """PEFT's DoRA leaves the experts out."""
    folder, model = saved("mixtral", tiny_tokenizer, tmp_path)
    config = RunConfig.load({"model_name_or_path": folder, "dataset": "llf_demo"} | keys)
    shapes = {name: tuple(one.shape) for name, one in model.named_parameters()}
    assert trained_parameters(config, shapes) == count_parameters(tuned(model_name_or_path=folder, **keys))[1]


@pytest.mark.parametrize("method", ["oft", "boft", "vera", "adalora"])
def test_all_is_every_linear_but_the_head(method, tuned):
    linears = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert tuned(finetuning_type=method).peft_config["default"].target_modules == linears


@pytest.mark.parametrize(
    ("keys", "key", "near"),
    [
        ({"finetuning_type": "oft", "oft_block_size": 24}, "oft_block_size", 16),
        ({"finetuning_type": "oft", "oft_block_size": 0, "oft_rank": 3}, "oft_rank", 2),
        ({"finetuning_type": "boft", "boft_block_size": 7}, "boft_block_size", 8),
    ],
)
def test_blocks_that_do_not_divide_are_refused_before_the_start(keys, key, near, tuned, tiny_model_dir):
    problem = problems(model_name_or_path=str(tiny_model_dir), **keys)[key]
    assert problem.severity == "error"
    assert "does not divide the 64 inputs of" in problem.message
    assert dict(problem.fixes[0].changes) == {key: near}
    with pytest.raises(ModelError, match="does not divide the 64 inputs of"):
        tuned(**keys)


@pytest.mark.parametrize(("size", "blocks"), [(32, 4), (0, 0)])
def test_the_size_of_blocks_or_their_number_is_given(size, blocks):
    problem = problems(finetuning_type="oft", oft_block_size=size, oft_rank=blocks)["oft_rank"]
    assert "Expected one of them above 0" in problem.message
    assert not problems(finetuning_type="oft", **problem.fixes[0].changes)


def test_several_butterfly_factors_need_a_gpu(tuned):
    keys = {"finetuning_type": "boft", "boft_n_butterfly_factor": 2}
    assert problems(**keys, use_cpu=True)["boft_n_butterfly_factor"].severity == "error"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"oft_target": "q_proj,query"}, ("oft_target", "no query", "q_proj", "all")),
        ({"oft_target": "q_proj", "additional_target": "q_proj"}, ("leaves no module of oft_target (q_proj)",)),
        ({"additional_target": "embed_tokens"}, ("are one matrix", "finetuning_type: lora")),
    ],
)
def test_what_does_not_fit_the_model_is_told_in_a_sentence(keys, words, tuned):
    with pytest.raises(ModelError) as error:
        tuned(finetuning_type="oft", **keys)
    assert all(word in str(error.value) for word in words)


def test_keys_of_all_adapters_have_no_effect_with_other_methods():
    note = problems(finetuning_type="full", learning_rate=1e-5, additional_target="embed_tokens")["additional_target"]
    assert (note.kind, note.severity) == ("not_needed", "note")
    assert "Methods that use it: adalora, boft, ia3, lora, oft" in note.message
    assert "additional_target" not in problems(finetuning_type="oft", additional_target="norm")


def test_options_of_peft_are_checked_before_the_start(tuned):
    keys = {"finetuning_type": "peft", "peft_type": "HRA"}
    assert not problems(**keys, peft_options={"r": 4, "apply_GS": True})
    wrong = {"r": True, "apply_gs": True, "task_type": "SEQ_CLS"}
    problem = problems(**keys, peft_options=wrong)["peft_options"]
    assert "r is True. Expected a value of the type int." in problem.message
    assert "no option 'apply_gs'. Did you mean 'apply_GS'?" in problem.message
    assert "task_type is set by LLF" in problem.message
    assert not problems(**keys, **problem.fixes[0].changes)
    alone = problems(finetuning_type="peft", peft_type="LN_TUNING", peft_options={"r": 4})["peft_options"]
    assert alone.message == "PEFT's LN_TUNING has no option 'r'. It has none."
    with pytest.raises(ModelError, match=r"cannot put C3A on .* block size should be a factor"):
        tuned(finetuning_type="peft", peft_type="C3A", peft_options={"block_size": 24})


@pytest.mark.parametrize(
    "keys",
    [
        {"finetuning_type": "prompt"},
        {"finetuning_type": "prefix"},
        {"finetuning_type": "peft", "peft_type": "P_TUNING"},
    ],
)
def test_vectors_before_each_example_need_attention(keys, tuned, tiny_tokenizer, tmp_path):
    with torch.random.fork_rng():
        AutoModelForCausalLM.from_config(tiny_config("mamba")).save_pretrained(tmp_path / "mamba")
    tiny_tokenizer.save_pretrained(tmp_path / "mamba")
    with pytest.raises(ModelError, match=r"MambaForCausalLM has no attention heads.* Expected another method, such as"):
        tuned(model_name_or_path=str(tmp_path / "mamba"), **keys)


def test_a_type_that_peft_does_not_have_is_refused_with_its_names():
    problem = problems(finetuning_type="peft", peft_type="IA4")["peft_type"]
    assert "Expected one of ADALORA, " in problem.message
    assert dict(problem.fixes[0].changes) == {"peft_type": "IA3"}
    assert "No adapter is set" in problems(finetuning_type="peft")["peft_type"].message


def test_a_type_that_another_version_of_peft_has_is_a_sentence():
    config = RunConfig.load({"model_name_or_path": "m", "dataset": "d", "finetuning_type": "lora"})
    made = dataclasses.replace(method_of(config).tuner(config), peft_type="IA4")
    with pytest.raises(ModelError, match=r"PEFT .* has no adapter of the type IA4\. Expected another method"):
        PeftTuner(config).settings(None, made)


@pytest.mark.parametrize(("kind", "refused"), [("HRA", True), ("ROAD", False)])
def test_quantized_layers_are_refused_where_peft_does_not_support_them(kind, refused):
    found = problems(finetuning_type="peft", peft_type=kind, quantization_bit=4)
    assert ("does not support layers quantized" in str(found.get("quantization_method"))) is refused


@pytest.mark.parametrize("requested", ["input_layernorm", "lm_hed"])
def test_any_module_may_be_a_target_of_a_type_of_peft(requested, tuned):
    keys = {"finetuning_type": "peft", "peft_type": "LN_TUNING", "peft_target": requested}
    if requested == "lm_hed":
        with pytest.raises(ModelError, match="peft_target: the model has no lm_hed"):
            tuned(**keys)
    else:
        assert count_parameters(tuned(**keys))[1] == 2 * 64


def test_options_are_those_of_pefts_own_config_classes():
    for kind, config_class in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        found = tuner(kind.value)
        assert found.config_class == config_class.__name__
        assert found.fields == {field.name for field in dataclasses.fields(config_class) if field.init}, kind
        needed = {name for name, option in found.options.items() if not option.has_default}
        missing = {dataclasses.MISSING}
        assert needed == {
            field.name
            for field in dataclasses.fields(config_class)
            if {field.default} == missing and {field.default_factory} == missing and field.init
        }
        values = {
            field.name: field.default
            for field in dataclasses.fields(config_class)
            if field.name in found.options
            and not isinstance(field.default, Enum)
            and field.default is not dataclasses.MISSING
        }
        assert list(check_options(found, values)) == [], kind
    assert len(tuner_names()) == len(PEFT_TYPE_TO_CONFIG_MAPPING)


def test_a_prompt_begins_as_the_embeddings_of_its_text(tuned, tiny_tokenizer):
    model = tuned(finetuning_type="prompt", prompt_tokens=7, prompt_init_text="How do plants make food?")
    ids = tiny_tokenizer("How do plants make food?", add_special_tokens=False)["input_ids"]
    expected = model.get_input_embeddings().weight[(ids * 7)[:7]]
    assert torch.equal(model.prompt_encoder["default"].embedding.weight, expected)


def test_adalora_makes_the_steps_of_pefts_own(tuned, monkeypatch):
    """PEFT adds the penalty to the loss that its model returns, and takes the steps of its schedule from a config."""
    from peft import AdaLoraConfig, get_peft_model

    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 1.0)
    keys = {"finetuning_type": "adalora", "adalora_initial_rank": 4, "adalora_rank": 2, "adalora_target": "q_proj"}
    torch.manual_seed(0)
    ours, method = tuned(**keys, adalora_warmup_steps=2, adalora_final_steps=3, method=True)
    base = ours.unload()
    torch.manual_seed(0)
    ours, method = tuned(**keys, adalora_warmup_steps=2, adalora_final_steps=3, method=True)
    torch.manual_seed(0)
    theirs = get_peft_model(
        base,
        AdaLoraConfig(
            task_type="CAUSAL_LM", init_r=4, target_r=2, lora_alpha=8, tinit=2, tfinal=3, total_step=12, deltaT=1,
            orth_reg_weight=0.5, target_modules=["q_proj"],
        ),
    )  # fmt: skip
    for name, one in theirs.named_parameters():
        if "ranknum" in name:  # which PEFT trains and does not save
            one.requires_grad_(requires_grad=False)
    batch = {"input_ids": torch.arange(40).view(2, 20) + 5}
    with torch.no_grad():
        for (_, one), (_, other) in zip(trained(ours), trained(theirs), strict=True):
            one.add_(torch.randn(one.shape) * 0.1)
            other.copy_(one)
    optimizers = [torch.optim.SGD([one for _, one in trained(model)], lr=0.5) for model in (ours, theirs)]
    for step in range(1, 13):
        theirs(**batch, labels=batch["input_ids"]).loss.backward()
        logits = ours(**batch).logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten()).backward()
        method.after_backward()
        for optimizer in optimizers:
            optimizer.step()
        theirs.base_model.update_and_allocate(step)
        method.after_step(step, 12)
        for optimizer in optimizers:
            optimizer.zero_grad()
    for (name, one), (_, other) in zip(trained(ours), trained(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=name)
    left = [int((one != 0).sum()) for name, one in trained(ours) if "lora_E" in name]
    assert sum(left) == 2 * 2  # of 4 singular values in each of two layers


def trained(model):
    """The trained parameters of a model, with their names."""
    return [(name, one) for name, one in model.named_parameters() if one.requires_grad]


def test_an_adapter_of_another_type_is_refused_before_the_start(tuned, tmp_path):
    tuned(finetuning_type="oft").save_pretrained(tmp_path / "adapter")
    problem = problems(adapter_name_or_path=str(tmp_path / "adapter"))["adapter_name_or_path"]
    assert problem.severity == "error"
    assert "of type OFT, which finetuning_type lora (LORA) cannot continue" in problem.message
    assert [dict(fix.changes) for fix in problem.fixes] == [{"finetuning_type": "oft"}, {"create_new_adapter": True}]
    assert all(not problems(adapter_name_or_path=str(tmp_path / "adapter"), **fix.changes) for fix in problem.fixes)


def test_adalora_leaves_the_experts_that_peft_cannot_wrap_by_it():
    config = RunConfig.load({"dataset": "llf_demo", "finetuning_type": "adalora"})
    model = apply_method(AutoModelForCausalLM.from_config(tiny_config("mixtral")), config)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert not any("experts" in name for name in trained)
