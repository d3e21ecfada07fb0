"""What a form can say of a data set before anything is started."""

import json

import pytest

from llf_core.config import RunConfig
from llf_core.data import precheck as module
from llf_core.data.align import formats, roles
from llf_core.data.conversation import ANSWERS, PAIRS, PROMPTS, TEXTS, UNPAIRED
from llf_core.data.errors import DataError, OtherKindError
from llf_core.data.load import open_source, read_source
from llf_core.data.precheck import precheck, quick_check
from llf_core.data.sources import find_sources

ANSWER = {"instruction": "Hi", "output": "Yo"}
PAIR = {"prompt": "Hi", "chosen": "Yo", "rejected": "Go away"}
MARKED = {"prompt": "Hi", "response": "Yo", "kto_tag": True}


@pytest.fixture
def config(tmp_path):
    for name, row in (("answers", ANSWER), ("pairs", PAIR), ("marked", MARKED)):
        (tmp_path / f"{name}.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    entries = {
        "far_pairs": {"hf_hub_url": "owner/pairs", "ranking": True, "columns": {"prompt": "q"}},
        "far_marked": {"hf_hub_url": "owner/kto", "columns": {"prompt": "q", "response": "a", "kto_tag": "good"}},
        "far_answers": {"hf_hub_url": "owner/answers"},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries))
    return RunConfig.load({"dataset": "llf_demo", "dataset_dir": str(tmp_path)})


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("answers.jsonl", {ANSWERS, PROMPTS}),
        ("pairs.jsonl", {PAIRS}),
        ("marked.jsonl", {ANSWERS, UNPAIRED}),
        ("llf_demo", {ANSWERS}),
        ("llf_demo_pairs", {PAIRS}),
        ("far_pairs", {PAIRS}),
        ("far_marked", {ANSWERS, UNPAIRED}),
        ("far_answers", {ANSWERS}),
    ],
)
def test_first_rows_or_the_entry_tell_what_a_set_holds(config, name, fits):
    said = {kind: precheck(config, name, kind) for kind in (ANSWERS, PAIRS, UNPAIRED)}
    assert {kind for kind, error in said.items() if error is None} == fits - {PROMPTS}
    for error in said.values():
        assert error is None or isinstance(error, OtherKindError)


def test_the_sentence_is_that_of_the_training(config):
    error = precheck(config, "answers.jsonl", PAIRS)
    assert str(error) == (
        "The data set answers.jsonl contains conversations with responses, for stage sft or kd. "
        "Stage dpo or rm needs preference pairs (chosen, rejected)."
    )
    assert error.kind == ANSWERS


def test_columns_that_fit_nothing_are_told_too(config, tmp_path):
    (tmp_path / "odd.jsonl").write_text('{"left": 1, "right": 2}\n')
    error = precheck(config, "odd.jsonl", ANSWERS)
    assert isinstance(error, DataError)
    assert "left, right" in str(error)


@pytest.mark.parametrize("name", ["owner/unknown", "nothing.jsonl", "https://example.org/a.jsonl"])
def test_what_is_far_away_or_missing_is_left_alone(config, name, monkeypatch):
    monkeypatch.setattr(module, "read_file", lambda _: pytest.fail("it was read"))
    assert precheck(config, name, PAIRS) is None


def test_a_large_list_is_not_read_for_its_first_record(config, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100)
    (tmp_path / "large.json").write_text(json.dumps([ANSWER] * 100))
    assert precheck(config, "large.json", PAIRS) is None
    (tmp_path / "large.jsonl").write_text(f"{json.dumps(ANSWER)}\n" * 100)
    assert isinstance(precheck(config, "large.jsonl", PAIRS), OtherKindError)


def test_a_file_that_was_changed_is_read_again(config, tmp_path):
    path = tmp_path / "answers.jsonl"
    assert precheck(config, "answers.jsonl", PAIRS) is not None
    path.write_text(f"{json.dumps(PAIR)}\n" * 5)
    assert precheck(config, "answers.jsonl", PAIRS) is None


ODD = {"frage": "Hi", "antwort": "Yo", "schlecht": "Go away", "gut": True}


@pytest.mark.parametrize(
    ("kind", "layout", "columns"),
    [
        (ANSWERS, "alpaca", {"prompt": "frage", "response": "antwort"}),
        (PAIRS, "alpaca", {"prompt": "frage", "chosen": "antwort", "rejected": "schlecht"}),
        (UNPAIRED, "alpaca", {"prompt": "frage", "response": "antwort", "kto_tag": "gut"}),
        (PROMPTS, "alpaca", {"prompt": "frage"}),
        (TEXTS, "text", {"prompt": "antwort"}),
    ],
)
def test_odd_columns_can_be_named_for_each_kind(tmp_path, kind, layout, columns):
    path = tmp_path / "odd.jsonl"
    path.write_text(f"{json.dumps(ODD)}\n" * 3)
    odd = {"dataset": str(path)}
    unread = quick_check(RunConfig.load(odd), str(path), kind)
    assert (unread.columns, len(unread.rows), unread.reading) == (tuple(ODD), 3, None)
    assert isinstance(unread.error, DataError)
    assert {role for role, needed in roles(layout, kind).items() if needed} == set(columns)
    named = RunConfig.load(odd | {"dataset_format": layout, "dataset_columns": columns})
    seen = quick_check(named, str(path), kind)
    assert seen.error is None
    assert (seen.reading.columns, seen.reading.fits) == (columns, 1.0)


def test_an_empty_file_is_told_before_a_start(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.touch()
    error = precheck(RunConfig.load({"dataset": str(path)}), str(path), ANSWERS)
    assert str(error) == (
        f"The data set empty.jsonl is empty: {path} has no records. Add at least one, or use another data set."
    )


def test_formats_that_hold_a_kind():
    assert [formats(kind) for kind in (ANSWERS, PAIRS, TEXTS)] == [
        ("alpaca", "openai", "sharegpt"), ("alpaca", "openai", "sharegpt"), ("text",)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("blank.jsonl", b"\n\n"),
        ("broken.jsonl", b'{"a":\nxx\n'),
        ("latin.csv", "instruction,output\ncafé,b\n".encode("latin-1")),
        ("head.csv", b"instruction,output\n"),
        ("rows.parquet", b"PAR1xxxxPAR1"),
        ("rows.jsonl.gz", b"xx"),
        ("empty.json", b""),
        ("empty.parquet", b""),
        ("folder/notes.md", b"# Notes"),
    ],
)
def test_a_data_set_that_no_run_can_read_is_told_in_the_sentence_of_the_run(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    named = str(path.parent if path.parent != tmp_path else path)
    config = RunConfig.load({"dataset": named})
    with pytest.raises(DataError) as raised:
        list(read_source(open_source(find_sources([named], tmp_path)[0]), None, 0))
    for _ in range(2):
        assert str(precheck(config, named, ANSWERS)) == str(raised.value)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (5, "is not an object"),
        ({"file_name": "answers.jsonl", "formatting": "nope"}, "has formatting 'nope'. Expected one of alpaca"),
        ({"file_name": "answers.jsonl", "tags": 5}, "has tags 5. Expected an object of strings."),
        ({"file_name": "answers.jsonl", "columns": {"promt": "q"}}, "in `columns`, has an unknown key 'promt'"),
        ({}, "has neither file_name nor hf_hub_url"),
    ],
)
def test_an_entry_that_no_run_could_use_is_told_before(config, tmp_path, entry, said):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    error = precheck(config, "mine", ANSWERS)
    assert error is not None
    assert said in error.message


def test_a_file_of_an_entry_that_is_missing_is_told_by_the_check_of_names_alone(config, tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "gone.jsonl"}}))
    assert precheck(config, "mine", ANSWERS) is None


def test_an_empty_file_of_a_folder_hides_no_other(config, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.json").touch()
    (tmp_path / "set" / "b.json").write_text(json.dumps([ANSWER]))
    assert quick_check(config, str(tmp_path / "set"), ANSWERS).rows == (ANSWER,)
