"""A stage and a data set of another kind: said beside the field, with what mends it, before anything is started."""

import json

import pytest

from llf_widgets.forms.state import FormState
from llf_widgets.forms.studio import Studio


@pytest.fixture
def state():
    return FormState({"dataset": "llf_demo", "stage": "sft"})


def said(state, key="dataset"):
    return [problem.message for problem in state.problems(key)]


def test_another_kind_stands_beside_the_data_set_and_keeps_start_off(state):
    state.set("stage", "dpo")
    (problem,) = state.problems("dataset")
    assert problem.message.startswith("The data set llf_demo contains conversations with responses")
    assert problem in state.errors()
    assert [fix.label for fix in problem.fixes] == [
        "Take llf_demo_pairs",
        "Set the stage to sft",
        "Set the stage to kd",
    ]
    state.apply(problem.fixes[0].changes)
    assert (state.value("dataset"), state.errors()) == ("llf_demo_pairs", ())


def test_another_stage_mends_it_too(state, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}))
    state.set("dataset", str(path))
    (problem,) = state.problems("dataset")
    assert [dict(fix.changes) for fix in problem.fixes] == [{"stage": "dpo"}, {"stage": "rm"}]


def test_what_is_evaluated_on_must_fit_too(state):
    state.set("eval_dataset", "llf_demo_pairs")
    assert said(state, "dataset") == []
    (problem,) = state.problems("eval_dataset")
    assert [fix.label for fix in problem.fixes] == ["Take llf_demo"]


def test_an_unknown_set_is_left_to_the_training(state):
    state.set("stage", "dpo")
    state.set("dataset", "owner/somewhere")
    assert state.errors() == ()


def test_only_sets_that_fit_are_proposed(tmp_path):
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"ours": {"hf_hub_url": "a/b", "ranking": True}, "talks": {"hf_hub_url": "a/c"}})
    )
    studio = Studio({"dataset": "llf_demo", "dataset_dir": str(tmp_path)})
    (row,) = [row for row in studio._sections["Data"]._rows if row["key"] == "dataset"]
    assert {"llf_demo", "talks"} <= set(row["suggestions"])
    assert not {"llf_demo_pairs", "ours"} & set(row["suggestions"])
    studio.set(stage="dpo", dataset="ours")
    (row,) = [row for row in studio._sections["Data"]._rows if row["key"] == "dataset"]
    assert {"llf_demo_pairs", "ours"} <= set(row["suggestions"])
    assert not {"llf_demo", "talks"} & set(row["suggestions"])


def test_the_options_of_a_stage_are_shown_with_it_alone():
    studio = Studio({"dataset": "llf_demo_pairs", "stage": "dpo"})
    keys = {row["key"] for row in studio._sections["Method"]._rows}
    assert {"stage", "pref_beta", "pref_loss"} <= keys
    assert studio._start.ready
    studio.set(stage="sft", dataset="llf_demo")
    assert not {"pref_beta", "pref_loss"} & {row["key"] for row in studio._sections["Method"]._rows}


def test_a_preset_brings_the_shipped_set_that_it_learns_from(state, tmp_path):
    state.select_preset("dpo")
    assert (state.value("dataset"), state.errors(), state.changed_keys()) == ("llf_demo_pairs", (), [])
    state.select_preset("lora")
    assert (state.value("dataset"), state.errors()) == ("llf_demo", ())
    mine = str(tmp_path / "mine.jsonl")
    state.set("dataset", mine)
    state.select_preset("dpo")
    assert state.value("dataset") == mine
