"""What a user names for an evaluation: runs, reward models, prompts and data in all their forms."""

from types import SimpleNamespace

import pytest

import llf_widgets as llf
from llf_core.evaluation.win_rate import PairwiseComparison, win_rate_of
from llf_core.runs import create_run
from llf_widgets import evaluation_calls


@pytest.fixture
def folder(tmp_path):
    return create_run("stage: sft\n", "one", tmp_path / "home")


@pytest.fixture
def called(monkeypatch):
    """What the processes would be given."""
    given = {}

    def keep(name, result):
        def call(*arguments, **options):
            given[name] = arguments, options
            return result

        return call

    rate = win_rate_of([PairwiseComparison("p", "a", "b", 0.0, 1.0)])
    monkeypatch.setattr(evaluation_calls, "answer_in_child", keep("answers", []))
    monkeypatch.setattr(evaluation_calls, "losses_in_child", keep("losses", None))
    monkeypatch.setattr(evaluation_calls, "win_rate_in_child", keep("win_rate", rate))
    monkeypatch.setattr(evaluation_calls, "reward_accuracy_in_child", keep("reward_accuracy", None))
    return given


def test_a_run_is_named_by_itself_its_folder_its_path_or_its_id(folder, called):
    for run in (SimpleNamespace(folder=folder), folder, folder.path, str(folder.path)):
        llf.answers(run, ["one"])
        assert called["answers"][0][:4] == (folder.id, ["one"], 64, folder.home)
        llf.losses(run)
        assert called["losses"][0] == (folder.id, None, folder.home)
    llf.answers(folder.id, "one")
    assert called["answers"][0][:4] == (folder.id, ["one"], 64, None)
    llf.losses(folder.id, folder.path / "a.jsonl")
    assert called["losses"][0] == (folder.id, f"{folder.path}/a.jsonl", None)


def test_a_reward_model_may_be_a_path(folder, called):
    for model in (SimpleNamespace(folder=folder), folder, folder.path, str(folder.path)):
        llf.win_rate(folder, model)
        assert called["win_rate"][0] == (folder.id, str(folder.path), None)
        assert called["win_rate"][1]["home"] == folder.home
        llf.reward_accuracy(model, folder.path / "a.jsonl")
        assert called["reward_accuracy"][0] == (str(folder.path), f"{folder.path}/a.jsonl")
    assert called["reward_accuracy"][1]["home"] is None
    llf.reward_accuracy(folder, "a")
    assert called["reward_accuracy"][1]["home"] == folder.home


def test_what_is_none_of_them_is_a_sentence_before_a_process_starts(folder, called, capsys):
    for wrong in (None, 5, ["x"]):
        for call in (lambda run: llf.answers(run, "one"), llf.losses, lambda run: llf.win_rate(run, "model")):
            with pytest.raises(TypeError, match=r"is not a run\. Expected"):
                call(wrong)
        for call in (lambda model: llf.win_rate("run", model), lambda model: llf.reward_accuracy(model, "data")):
            with pytest.raises(TypeError, match=r"is not a reward model\. Expected"):
                call(wrong)
    for prompts in (None, 5, [None], ["one", 2], b"one"):
        with pytest.raises(TypeError, match=r"Expected a text\."):
            llf.answers("run", prompts)
    with pytest.raises(TypeError, match=r"A prompt is 5\. Expected a text\."):
        llf.win_rate("run", "model", 5)
    for data in ([{"prompt": "one"}], 5):
        with pytest.raises(TypeError, match=r"The data set is .*\. Expected a name, a file, a folder or a hub id\."):
            llf.losses("run", data)
        with pytest.raises(TypeError, match="The data set is"):
            llf.reward_accuracy("model", data)
    with pytest.raises(FileNotFoundError, match="No run folder"):
        llf.answers(folder.path.with_name("gone"), "one")
    assert called == {}
    assert capsys.readouterr().out == ""
