"""Names of models: what is here passes, a slip is an error with the right name, all else is a question for the hub."""

from pathlib import Path

import pytest

from llf_core.config.name_checks import CheckResult
from llf_core.config.name_checks.model_folder import folder_of
from llf_core.config.name_checks.models import models


def store(machine, name, kind="models"):
    """A repository in the hub's cache."""
    folder = machine.parent / "hf" / "hub" / f"{kind}--{name.replace('/', '--')}" / "snapshots" / "0a"
    folder.mkdir(parents=True)
    return folder


def test_the_typo_of_the_campaign(only):
    problem = only(model_name_or_path="smollm2-135m-instrct")
    assert (problem.severity, problem.kind, problem.key) == ("error", "unresolved", "model_name_or_path")
    assert problem.message == (
        "There is no model 'smollm2-135m-instrct': no such folder, and not a built-in name. "
        "Did you mean 'smollm2-135m-instruct'?"
    )
    assert [(fix.label, dict(fix.changes)) for fix in problem.fixes] == [
        ("Use smollm2-135m-instruct", {"model_name_or_path": "smollm2-135m-instruct"})
    ]


def test_what_is_here_or_known_passes(machine, found, tiny_model_dir):
    store(machine, "somebody/their-model")
    (machine / "mine").mkdir()
    (machine / "mine" / "config.json").write_text("{}")
    for name in ("smollm2-135m-instruct", "somebody/their-model", "mine", "./mine", str(tiny_model_dir)):
        assert found(model_name_or_path=name) == CheckResult(), name


def test_no_known_model_is_asked_about(found):
    for name in models():
        told = found(model_name_or_path=name)
        assert told.questions == (), name
        assert all(one.severity != "error" for one in told.problems), name


def test_a_cache_elsewhere_counts(machine, found):
    (machine / "cache" / "models--a--b" / "snapshots" / "0").mkdir(parents=True)
    assert found(model_name_or_path="a/b", cache_dir=str(machine / "cache")) == CheckResult()
    (question,) = found(model_name_or_path="a/b").questions
    assert (question.kind, question.name, question.key) == ("model", "a/b", "model_name_or_path")


def test_a_slip_of_a_folder_is_an_error_with_its_name(machine, only):
    (machine / "my-model").mkdir()
    (machine / "my-model" / "config.json").write_text("{}")
    problem = only(model_name_or_path="my-modl")
    assert (problem.severity, dict(problem.fixes[0].changes)) == ("error", {"model_name_or_path": "my-model"})


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-7B-Instrct", "Qwen2.5-7B-Instrct", "qwen2.5-7b-instruct"])
def test_a_slip_of_a_hub_id_is_a_question_with_the_right_name(found, name):
    asked = found(model_name_or_path=name)
    (question,) = asked.questions
    assert asked.problems == ()
    assert question.hint == " Did you mean 'Qwen/Qwen2.5-7B-Instruct'?"


def test_another_size_is_no_slip(found):
    (question,) = found(model_name_or_path="smollm2-360m-instruct").questions
    assert dict(question.fixes[0].changes) == {"model_name_or_path": "HuggingFaceTB/SmolLM2-360M-Instruct"}


@pytest.mark.parametrize("name", ["Qwen 2.5 7B", "-model", "a model/b"])
def test_what_can_be_no_id_is_an_error(only, name):
    problem = only(model_name_or_path=name)
    assert problem.severity == "error"
    assert "a hub id of the form owner/name." in problem.message


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_an_error(only, name):
    problem = only(model_name_or_path=name)
    assert problem.message.startswith("No model is set.")
    assert dict(problem.fixes[0].changes) == {"model_name_or_path": "smollm2-135m-instruct"}


def test_an_address_is_an_error_with_the_id_in_it(only):
    problem = only(model_name_or_path="https://huggingface.co/Qwen/Qwen3-0.6B")
    assert dict(problem.fixes[0].changes) == {"model_name_or_path": "Qwen/Qwen3-0.6B"}


def test_what_is_here_and_no_model_is_an_error(machine, only, found):
    (machine / "rows.json").write_text("[]")
    (machine / "empty").mkdir()
    (machine / "with-gguf").mkdir()
    (machine / "with-gguf" / "a.gguf").write_bytes(b"")
    assert f"{machine / 'rows.json'} is a file of type .json." in only(model_name_or_path="./rows.json").message
    assert "does not contain a model: it has no config.json." in only(model_name_or_path="empty").message
    assert found(model_name_or_path="with-gguf") == CheckResult()


def test_a_name_that_begins_with_a_folder_of_this_machine_may_be_a_path_or_an_id(machine, found, only):
    (machine / "saves" / "llama-lora").mkdir(parents=True)
    (machine / "saves" / "llama-lora" / "adapter_config.json").write_text("{}")
    (question,) = found(adapter_name_or_path="saves/lama-lora").questions
    assert dict(question.fixes[0].changes) == {"adapter_name_or_path": "saves/llama-lora"}
    assert only(model_name_or_path="models/llama/7b").severity == "warning"


def test_the_beginning_of_the_embedded_name_means_it(found):
    (question,) = found(model_name_or_path="smollm2").questions
    assert question.hint == " Did you mean 'smollm2-135m-instruct'?"


def test_a_path_that_is_not_there_is_a_warning_and_with_a_slip_an_error(machine, only):
    problem = only(model_name_or_path="/nowhere/m")
    assert (problem.severity, problem.message) == ("warning", "No such file or folder: /nowhere/m.")
    (machine / "llama").mkdir()
    problem = only(model_name_or_path="./lama")
    assert problem.severity == "error"
    assert dict(problem.fixes[0].changes) == {"model_name_or_path": str(machine / "llama")}
    assert only(adapter_name_or_path="/nowhere/a").key == "adapter_name_or_path"


def test_the_other_models_of_a_stage_are_looked_at_where_it_has_them(found):
    dpo = {"dataset": "llf_demo_pairs", "ref_model": "smollm2-135m-instrct"}
    (problem,) = found(stage="dpo", **dpo).problems
    assert problem.key == "ref_model"
    assert found(stage="pt", ref_model="smollm2-135m-instrct") == CheckResult()
    assert [one.key for one in found(stage="kd", teacher_model="smollm2-135m-instrct").problems] == ["teacher_model"]


def test_a_reward_model_may_be_a_run_or_an_address(found):
    ppo = {"stage": "ppo", "reward_model_type": "full"}
    run = "20261124-142530-smollm2-rm-lora"
    assert found(**ppo, reward_model=run, runs=[run]) == CheckResult()
    (problem,) = found(**ppo, reward_model="20261124-142530-smollm2-rm-lra", runs=[run]).problems
    assert dict(problem.fixes[0].changes) == {"reward_model": run}
    assert found(stage="ppo", reward_model_type="api", reward_model="http://127.0.0.1:1/score") == CheckResult()


def test_of_several_adapters_only_the_wrong_one_is_replaced(machine, only):
    for name in ("one", "second"):
        (machine / name).mkdir()
        (machine / name / "adapter_config.json").write_text("{}")
    problem = only(adapter_name_or_path="one,secnd")
    assert dict(problem.fixes[0].changes) == {"adapter_name_or_path": f"{machine / 'one'},second"}


def test_an_empty_name_is_not_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert folder_of("") is None
    assert folder_of(".") == Path()
