"""Names of modules: read from the model where it is here, else from the table of families."""

import json

import pytest

from llf_core.config.name_checks import CheckResult
from llf_core.config.name_checks.models import families
from llf_core.config.name_checks.modules import modules_of


def test_the_typo_of_the_campaign(only):
    problem = only(lora_target="q_prj,v_proj")
    assert (problem.severity, problem.key) == ("error", "lora_target")
    assert problem.message == (
        "smollm2-135m-instruct has no q_prj. Did you mean q_proj? Expected `all`, or some of down_proj, embed_tokens, "
        "gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj."
    )
    assert [dict(fix.changes) for fix in problem.fixes] == [{"lora_target": "q_proj,v_proj"}, {"lora_target": "all"}]


@pytest.mark.parametrize("names", ["all", "q_proj,v_proj", "self_attn.q_proj", "embed_tokens"])
def test_what_the_model_has_passes(found, names):
    assert found(lora_target=names) == CheckResult()


@pytest.mark.parametrize("key", ["additional_target", "ia3_feedforward", "freeze_extra_modules"])
def test_all_is_a_name_where_no_key_says_more(only, key):
    method = {"additional_target": "lora", "ia3_feedforward": "ia3", "freeze_extra_modules": "freeze"}[key]
    problem = only(finetuning_type=method, **{key: "all"})
    assert (problem.severity, problem.key) == ("error", key)
    assert "has no all" in problem.message
    assert "`all`" not in problem.message


def test_freeze_names_modules_where_it_looks_for_them(found, only, tiny_model_dir):
    for model in ({}, {"model_name_or_path": str(tiny_model_dir)}):
        freeze = {"finetuning_type": "freeze"} | model
        assert (
            found(**freeze, freeze_trainable_modules="mlp,q_proj", freeze_extra_modules="embed_tokens") == CheckResult()
        )
        for key, name, where in (
            ("freeze_trainable_modules", "embed_tokens", "inside"),
            ("freeze_trainable_modules", "mlp.up_proj", "inside"),
            ("freeze_extra_modules", "q_proj", "outside"),
        ):
            problem = only(**freeze, **{key: name})
            assert (problem.severity, problem.key) == ("error", key)
            assert f"has no {name} {where} its blocks." in problem.message


def test_a_head_is_no_target_and_may_be_trained_whole(found, only):
    assert only(lora_target="lm_head").severity == "error"
    assert found(additional_target="lm_head,embed_tokens,norm") == CheckResult()
    assert only(additional_target="embed_tokns").key == "additional_target"


@pytest.mark.parametrize("text", ["q_proj v_proj", "q_proj; v_proj", "q_proj|v_proj"])
def test_names_with_other_signs_between_them_are_taken_apart(only, text):
    assert dict(only(lora_target=text).fixes[0].changes) == {"lora_target": "q_proj,v_proj"}


def test_the_modules_of_a_folder_are_those_of_its_weights(found, only, tiny_model_dir):
    from transformers import AutoModelForCausalLM

    from llf_core.methods.adapter_targets import linear_names

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    known = modules_of(str(tiny_model_dir))
    assert known.exact
    assert known.linear == {*linear_names(model), "embed_tokens"}
    assert {name.rpartition(".")[2] for name, _ in model.named_modules() if name} - known.every <= {
        "0", "1", "layers", "model", "act_fn", "rotary_emb"
    }  # fmt: skip
    assert found(model_name_or_path=str(tiny_model_dir), lora_target="down_proj") == CheckResult()
    assert only(model_name_or_path=str(tiny_model_dir), lora_target="c_attn").severity == "error"


def test_experts_of_a_folder_have_the_names_of_the_loaded_model(found, machine):
    import torch
    from safetensors.torch import save_file

    (machine / "moe").mkdir()
    (machine / "moe" / "config.json").write_text(json.dumps({"model_type": "somebodys_own"}))
    weights = {"model.layers.0.mlp.experts.0.w1.weight": torch.zeros(2, 2)}
    save_file(weights, machine / "moe" / "model.safetensors")
    assert found(model_name_or_path="moe", lora_target="gate_up_proj,down_proj") == CheckResult()


def test_a_folder_without_safetensors_is_known_by_its_type(machine, only):
    (machine / "gpt").mkdir()
    (machine / "gpt" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    problem = only(model_name_or_path="gpt", lora_target="q_proj")
    assert problem.message.startswith("gpt has no q_proj. Did you mean c_proj? Expected `all`, or some of c_attn,")


def test_of_a_known_id_a_slip_is_an_error_and_anything_else_a_warning(only):
    assert only(model_name_or_path="Qwen/Qwen2.5-7B-Instruct", lora_target="q_prj").severity == "error"
    assert only(model_name_or_path="Qwen/Qwen2.5-7B-Instruct", lora_target="query_key_value").severity == "warning"


def test_of_an_unknown_model_only_a_slip_is_warned_of(found):
    asked = found(model_name_or_path="somebody/else", lora_target="q_prj,their_own_layer")
    (problem,) = asked.problems
    assert (problem.severity, problem.message) == (
        "warning", "None of the models that LLF knows has a module q_prj. Did you mean q_proj?"
    )  # fmt: skip


def test_modules_of_another_method_are_not_looked_at(found, only):
    assert found(finetuning_type="full", learning_rate=1e-5, lora_target="q_prj") == CheckResult()
    freeze = {"finetuning_type": "freeze", "learning_rate": 1e-5}
    assert only(**freeze, freeze_trainable_modules="self_atn").key == "freeze_trainable_modules"
    assert found(**freeze, freeze_trainable_modules="self_attn,mlp", freeze_extra_modules="norm") == CheckResult()


@pytest.mark.parametrize("kind", [kind for family in families() for kind in family.types])
def test_the_table_says_what_transformers_builds(kind):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from llf_core.methods.adapter_targets import block_modules, linear_names, outer_modules
    from llf_core.models.checksums import expert_parameters

    settings = AutoConfig.for_model(kind)
    for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
        if hasattr(settings, key) and key not in getattr(settings, "attribute_map", {}):
            setattr(settings, key, 4)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings)
    (family,) = [one for one in families() if kind in one.types]
    names = [name for name, _ in model.named_parameters()]
    assert linear_names(model) == sorted(family.linear)
    assert {path.rpartition(".")[2] for path in expert_parameters(model)} == set(family.experts)
    assert block_modules(names) == set(family.inside)
    assert outer_modules(names) == set(family.outside)
