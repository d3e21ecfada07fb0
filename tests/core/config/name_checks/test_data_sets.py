"""Names of data sets: entries, shipped sets, files and hub ids pass; a slip is an error with the right name."""

import json

import pytest

from llf_core.config.name_checks import CheckResult
from llf_core.config.name_checks.models import datasets, llama_factory_entries
from tests.core.config.name_checks.test_models import store


@pytest.fixture
def data(machine):
    """A data folder with three entries, of which one file is there."""
    folder = machine / "data"
    folder.mkdir()
    entries = {
        "alpaca_en_demo": {"file_name": "alpaca_en_demo.json"},
        "gone": {"file_name": "alpaca_demo.json"},
        "far": {"hf_hub_url": "somebody/far"},
    }
    (folder / "dataset_info.json").write_text(json.dumps(entries))
    (folder / "alpaca_en_demo.json").write_text("[]")
    return folder


def test_the_typo_of_the_campaign(data, only):
    problem = only(dataset="llf_demo,alpaca_en_dmo")
    assert (problem.severity, problem.key) == ("error", "dataset")
    assert problem.message == (
        f"There is no data set 'alpaca_en_dmo': no such file or folder, and {data / 'dataset_info.json'} names "
        "alpaca_en_demo, gone, far. Did you mean 'alpaca_en_demo'?"
    )
    assert [dict(fix.changes) for fix in problem.fixes] == [{"dataset": "llf_demo,alpaca_en_demo"}]


def test_it_is_told_without_a_data_folder_too(only):
    problem = only(dataset="alpaca_en_dmo")
    assert problem.severity == "error"
    assert problem.message.endswith(
        "Did you mean 'alpaca_en_demo'? It is an entry of LLaMA-Factory's dataset_info.json: set `dataset_dir` to the "
        "folder that holds it too."
    )
    assert "llf_demo'" in only(dataset="llf_dmo").message


def test_what_is_here_or_known_passes(machine, data, found):
    store(machine, "somebody/theirs", "datasets")
    (machine / "mine.jsonl").write_text("{}\n")
    (machine / "sets").mkdir()
    for name in ("llf_demo", "llf_demo_pairs", "alpaca_en_demo", "mine.jsonl", "sets", "somebody/theirs", *datasets()):
        assert found(dataset=name, stage="sft") == CheckResult(), name
    assert found(dataset="s3://bucket/rows.jsonl") == CheckResult()


def test_the_hub_is_asked_about_its_ids_and_those_of_entries(data, found):
    asked = found(dataset="far,somebody/near").questions
    assert [(one.kind, one.name) for one in asked] == [("dataset", "somebody/far"), ("dataset", "somebody/near")]
    (question,) = found(dataset="tatsu-lab/alpca").questions
    assert question.hint == " Did you mean 'tatsu-lab/alpaca'?"


def test_online_takes_names_for_ids(found):
    (question,) = found(dataset="imdb", dataset_dir="ONLINE").questions
    assert question.name == "imdb"
    assert found(dataset="anything", dataset_dir="REMOTE:owner/name") == CheckResult()


def test_an_entry_whose_file_is_gone_says_so(data, only):
    problem = only(dataset="gone")
    assert problem.severity == "error"
    assert "'gone' is alpaca_demo.json in" in problem.message
    assert problem.message.endswith("Did you mean 'alpaca_en_demo.json'?")


def test_a_file_of_another_ending_is_found(machine, only):
    (machine / "rows.jsonl").write_text("")
    assert dict(only(dataset="rows.jsnl").fixes[0].changes) == {"dataset": "rows.jsonl"}


def test_llama_factorys_own_names_are_a_warning_where_their_folder_is_not_here(only):
    for name in llama_factory_entries():
        problem = only(dataset=name)
        assert (problem.severity, problem.fixes) == ("warning", ())
    assert problem.message.endswith("Set `dataset_dir` to the folder that holds it.")


def test_a_data_folder_that_is_not_here_is_a_warning(machine, only):
    problem = only(dataset="theirs", dataset_dir="/nowhere/data")
    assert problem.severity == "warning"
    assert only(dataset="theirs", dataset_dir=str(machine)).severity == "error"


def test_a_broken_info_file_is_an_error(data, only):
    (data / "dataset_info.json").write_text("{")
    assert "is not JSON" in only(dataset="alpaca_en_demo").message


def test_a_byte_order_mark_is_no_part_of_an_info_file(data, found):
    file = data / "dataset_info.json"
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert found(dataset="alpaca_en_demo") == CheckResult()


def test_what_is_evaluated_on_is_looked_at_too(data, only):
    problem = only(eval_dataset="alpaca_en_dmo", eval_strategy="epoch")
    assert problem.key == "eval_dataset"
    assert dict(problem.fixes[0].changes) == {"eval_dataset": "alpaca_en_demo"}
