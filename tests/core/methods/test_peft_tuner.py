"""The adapters of PEFT beside LoRA: their targets, their size and what is refused before the start."""

import pytest

from llf_core.config import RunConfig, validate
from llf_core.config.name_checks import check
from llf_core.estimate import trained_parameters, weight_shapes
from llf_core.models import ModelError, count_parameters

# inputs of the tiny Llama's seven linears of two layers: 6 of 64 and one of 128; their outputs: 64, 32, 32, 64, 128,
# 128, 64
INPUTS, OUTPUTS = 2 * (6 * 64 + 128), 2 * (3 * 64 + 2 * 32 + 2 * 128)
COUNTS = {
    "oft": ({"oft_block_size": 16}, INPUTS * 15 // 2),
    "oft, by blocks": (
        {"finetuning_type": "oft", "oft_block_size": 0, "oft_rank": 8},
        2 * (6 * 64 * 7 + 128 * 15) // 2,
    ),
    "boft": ({"boft_block_size": 8}, INPUTS * 8 + OUTPUTS),
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


@pytest.mark.parametrize("method", ["oft", "boft"])
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
    assert "Methods that use it: boft, lora, oft" in note.message
    assert "additional_target" not in problems(finetuning_type="oft", additional_target="norm")


def test_an_adapter_of_another_type_is_refused_before_the_start(tuned, tmp_path):
    tuned(finetuning_type="oft").save_pretrained(tmp_path / "adapter")
    problem = problems(adapter_name_or_path=str(tmp_path / "adapter"))["adapter_name_or_path"]
    assert problem.severity == "error"
    assert "of type OFT, which finetuning_type lora (LORA) cannot continue" in problem.message
    assert [dict(fix.changes) for fix in problem.fixes] == [{"finetuning_type": "oft"}, {"create_new_adapter": True}]
    assert all(not problems(adapter_name_or_path=str(tmp_path / "adapter"), **fix.changes) for fix in problem.fixes)
