"""From a config to examples: counts, names, splits, the kept result, and every error in a sentence."""

import json
import multiprocessing
import os
import re

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from tokenizers import Tokenizer, decoders, models
from transformers import CTRLTokenizer, PreTrainedTokenizerFast

from llf_core.data import DataError, DataReport, dump_examples, prepare
from llf_core.data import example_store as caches
from llf_core.data.example_store import split_validation, tokenizer_hash
from llf_core.data.precheck import precheck
from llf_core.data.report import Broken, Dropped, SetCounts, SplitRecord, Truncated, decode_example
from llf_core.runs import RunWriter, create_run
from llf_core.runs.findings import duplicates_warning

GOOD = [{"instruction": f"Question {number}?", "output": f"The answer {number}."} for number in range(10)]


def texts(tokenizer, examples):
    return [tokenizer.decode(ids) for ids in examples["input_ids"]]


def test_the_first_view_of_a_small_set(make_config, write, tokenizer):
    write(
        '{"instruction": "Hi", "output": "Yo"}\nbroken\n{"instruction": "Hi", "output": ""}\n'
        + json.dumps({"instruction": "the sea " * 30, "output": "the ship " * 30})
        + "\n"
    )
    ready = prepare(make_config(cutoff_len=40), tokenizer)
    report = ready.report
    first = tokenizer("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n").input_ids
    assert ready.eval is None
    assert ready.train.column_names == ["input_ids", "labels", "index", "number"]
    assert ready.train["index"] == [0, 3]
    assert ready.train["number"] == [0, 1]
    assert ready.train[0]["input_ids"] == first
    assert [len(ids) for ids in ready.train["input_ids"]] == [len(first), 40]
    assert report.examples == 2
    assert report.tokens == len(first) + 40
    trained = sum(label != -100 for labels in ready.train["labels"] for label in labels)
    assert report.trained_tokens == trained
    (cut,) = report.truncated
    assert cut == Truncated(3, cut.cut, "data.jsonl")
    assert cut.cut > 0
    assert report.dropped == [Dropped(2, "a response is empty", "data.jsonl")]
    assert report.broken == [Broken(2, "Expecting value at column 1", "data.jsonl", 1)]
    assert report.unusable() == [
        Dropped(1, "it cannot be read: Expecting value at column 1", "data.jsonl"),
        Dropped(2, "a response is empty", "data.jsonl"),
    ]
    assert report.sets == [SetCounts("data.jsonl", 4, 2, report.tokens, trained, "line")]
    assert report.summary()["records"] == 4
    assert [entry["index"] for entry in report.summary()["dropped"]] == [1, 2]
    assert report.preview[0].text() == ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Yo<|im_end|>\n⟧")
    assert [part.trained for part in report.preview[0].segments] == [False, True]
    assert report.readings == {"data.jsonl": "alpaca (columns instruction and output; 67 % of the first rows match)"}
    said = report.text()
    for part in ("2 training examples", "data.jsonl line 4 by", "data.jsonl line 3: a response is empty", "line 2"):
        assert part in said
    assert DataReport.from_json(json.loads(json.dumps(report.json()))) == report


def test_longer_examples_are_dropped_or_split_when_asked(make_config, write, tokenizer):
    write([*GOOD[:2], {"instruction": "the sea", "output": "the ship " * 30}])
    dropped = prepare(make_config(cutoff_len=40, cutoff_strategy="drop"), tokenizer)
    assert dropped.train["index"] == [0, 1]
    assert "more than cutoff_len 40" in dropped.report.dropped[0].reason
    split = prepare(make_config(cutoff_len=40, cutoff_strategy="split"), tokenizer)
    parts = split.train["index"].count(2)
    assert parts > 1
    assert split.report.divided == [SplitRecord(2, parts, "data.jsonl")]
    assert (split.report.truncated, split.report.dropped) == ([], [])


def test_a_run_can_be_stopped_by_dropped_records(make_config, write, tokenizer):
    write('{"instruction": "Hi", "output": "Yo"}\nbroken\n{"instruction": "Hi", "output": ""}\n')
    with pytest.raises(
        DataError, match=r"2 records give no example.*data.jsonl line 2: it cannot.*data.jsonl line 3: a response"
    ):
        prepare(make_config(stop_on_dropped=True), tokenizer)
    assert prepare(make_config(), tokenizer).report.examples == 1
    write('{"instruction": "Hi", "output": "Yo"}\n' + '{"instruction": "Hi", "output": ""}\n' * 7)
    named = "".join(f"; data.jsonl line {line}: a response is empty" for line in range(2, 7))
    with pytest.raises(DataError) as stopped:
        prepare(make_config(stop_on_dropped=True), tokenizer)
    assert str(stopped.value) == (
        f"7 records give no example, and `stop_on_dropped` is true: {named[2:]}; and 2 more. Fix the records, or set "
        "`stop_on_dropped` to false to train without them. `llf inspect --json` with `stop_on_dropped=false` lists all "
        "of them."
    )


def test_every_example_can_be_dumped(make_config, write, tokenizer, tmp_path):
    write(GOOD)
    ready = prepare(make_config(val_size=2, packing=True, cutoff_len=64), tokenizer)
    dump_examples(ready, tmp_path / "dump.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "dump.jsonl").read_text().splitlines()]
    assert [line["split"] for line in lines] == ["train"] * 8 + ["eval"] * 2
    assert sorted(line["index"] for line in lines) == list(range(10))
    first = {key: lines[0][key] for key in ("index", "input_ids", "labels")}
    assert first.items() <= ready.train.examples[0].items()
    assert lines[-1]["input_ids"] == ready.eval[1]["input_ids"]


@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "folder"])
def test_the_same_data_from_any_file_has_the_same_fingerprint(make_config, write, tokenizer, tmp_path, kind):
    write(GOOD)
    reference = prepare(make_config(), tokenizer)
    table = pa.Table.from_pylist(GOOD)
    if kind == "csv":
        table.to_pandas().to_csv(tmp_path / "other.csv", index=False)
    elif kind == "parquet":
        parquet.write_table(table, tmp_path / "other.parquet")
    elif kind == "json":
        write(json.dumps(GOOD), "other.json")
    else:
        Dataset.from_list(GOOD).save_to_disk(tmp_path / "other.folder")
    other = prepare(make_config(dataset=f"./other.{kind}"), tokenizer)
    assert other.report.fingerprint == reference.report.fingerprint
    assert other.train["input_ids"] == reference.train["input_ids"]


def test_sets_of_the_same_file_name_are_told_apart(make_config, write, tokenizer):
    paths = [str(write([*GOOD[:1], {}], f"{folder}/rows.jsonl")) for folder in "ab"]
    report = prepare(make_config(dataset=paths), tokenizer).report
    assert [entry.dataset for entry in report.dropped] == paths


def test_several_sets_become_one(make_config, write, tokenizer):
    write(GOOD[:3], "a.jsonl")
    write([{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}], "b.jsonl")
    ready = prepare(make_config(dataset="a.jsonl,b.jsonl", max_samples=2), tokenizer)
    assert ready.train["index"] == [0, 1, 0]
    assert "Yo" in texts(tokenizer, ready.train)[2]


@pytest.mark.parametrize(("size", "held"), [(0.2, 2), (0.01, 1), (3, 3)])
def test_val_size_is_a_share_or_a_number_split_by_the_seed(make_config, write, tokenizer, size, held):
    write(GOOD)
    one, same, other = (prepare(make_config(val_size=size, seed=seed), tokenizer) for seed in (1, 1, 2))
    assert (len(one.train), len(one.eval)) == (10 - held, held)
    assert sorted([*one.train["index"], *one.eval["index"]]) == list(range(10))
    assert one.train["index"] == sorted(one.train["index"])
    assert one.eval["index"] == same.eval["index"]
    assert one.report.tokens == sum(map(len, one.train["input_ids"]))
    assert one.report.eval_examples == held
    if held > 1:
        assert one.eval["index"] != other.eval["index"]


def test_holding_everything_out_is_refused():
    with pytest.raises(DataError, match="val_size 4 holds out 4 of 4 examples"):
        split_validation(np.arange(4), 4, 0)
    kept, held = split_validation(np.arange(1000), 0.25, 0)
    assert (len(kept), len(held)) == (750, 250)
    assert set(np.concatenate([kept, held]).tolist()) == set(range(1000))


@given(twins=st.lists(st.integers(0, 6), min_size=2, max_size=40), size=st.floats(0.05, 0.9), seed=st.integers(0, 9))
def test_copies_are_held_out_together(twins, size, seed):
    twins = np.array(twins)
    count = max(1, round(len(twins) * size))
    try:
        kept, held = split_validation(twins, size, seed)
    except DataError:
        largest = np.bincount(twins).max()
        assert count + largest > len(twins)
        return
    assert sorted([*kept, *held]) == list(range(len(twins)))
    assert not set(twins[kept]) & set(twins[held])
    assert count <= len(held) < count + np.bincount(twins).max()


def test_a_config_can_say_how_rows_are_read(make_config, write, tokenizer):
    write([{"a": "Hi", "b": "Yo", "instruction": "never", "output": "never"}])
    columns = {"prompt": "a", "response": "b"}
    ready = prepare(make_config(dataset_format="alpaca", dataset_columns=columns), tokenizer)
    assert "as dataset_format says" in ready.report.text()
    assert "Hi" in texts(tokenizer, ready.train)[0]
    assert "never" not in texts(tokenizer, ready.train)[0]
    with pytest.raises(DataError, match="no column 'c'"):
        prepare(make_config(dataset_format="alpaca", dataset_columns={**columns, "query": "c"}), tokenizer)


def test_copies_can_be_left_out(make_config, write, tokenizer):
    write([*GOOD[:3], GOOD[0], GOOD[2], GOOD[3]])
    report = prepare(make_config(), tokenizer).report
    assert (report.examples, report.repeated, report.counts()["copies"]) == (6, 2, 2)
    said = "2 of the 6 training examples are duplicates of earlier ones, and each copy is trained on."
    assert f"{said} `drop_duplicates: true` drops them." in report.text()
    ready = prepare(make_config(drop_duplicates=True), tokenizer)
    assert ready.train["index"] == [0, 1, 2, 5]
    assert (ready.report.examples, ready.report.copies) == (4, 2)
    assert "2 duplicates of earlier examples dropped." in ready.report.text()
    assert (ready.report.repeated, ready.report.duplicates_warning()) == (0, None)
    assert "are copies" not in ready.report.text()
    one = "1 of the 6 training examples is a duplicate of an earlier one, and each copy is trained on."
    assert duplicates_warning(1, 6) == one


def test_eval_dataset_is_read_as_the_training_set_is(make_config, write, tokenizer):
    write(GOOD)
    write('{"question": "a", "answer": "b"}\n{"question": "a"}\n', "test.jsonl")
    ready = prepare(make_config(eval_dataset="test.jsonl"), tokenizer)
    assert (len(ready.train), len(ready.eval)) == (10, 1)
    assert ready.report.dropped == [Dropped(1, "the response is missing", "test.jsonl")]


@pytest.mark.parametrize(
    ("content", "values", "message"),
    [
        (None, {}, "There is no data set"),
        ("", {}, "is empty"),
        ("oops\n", {}, r"No line of .*data.jsonl can be read; the first of 1 is line 1: Expecting value"),
        ([{"a": 1, "b": 2}], {}, "match no known format"),
        (
            [{"instruction": "a", "output": ""}],
            {},
            r"No example of data.jsonl is usable: a response is empty \(1",
        ),
        (GOOD[:2], {"val_size": 2}, "holds out 2 of 2"),
        (GOOD, {"cutoff_len": 3}, "leaves no room"),
        (GOOD, {"template": "llama3"}, "not a token of this tokenizer"),
    ],
)
def test_data_that_cannot_be_used_is_one_sentence(make_config, write, tokenizer, content, values, message):
    if content is not None:
        write(content)
    with pytest.raises(DataError, match=message) as caught:
        prepare(make_config(**values), tokenizer)
    assert "\n" not in caught.value.message


def test_a_table_without_a_usable_row_is_not_asked_for_lines_of_json(make_config, tmp_path, tokenizer):
    times = pa.array([0, 1], pa.timestamp("us", tz="Mars/Phobos"))
    table = pa.table({"instruction": ["a", "b"], "output": ["c", "d"], "at": times})
    parquet.write_table(table, tmp_path / "rows.parquet")
    config = make_config(dataset=str(tmp_path / "rows.parquet"))
    with pytest.raises(DataError) as caught:
        prepare(config, tokenizer)
    reason = "a time in an unknown time zone: Mars/Phobos"
    message = f"No row of {tmp_path / 'rows.parquet'} can be read; the first of 2 is row 1: {reason}."
    assert caught.value.message == message
    error = precheck(config, str(tmp_path / "rows.parquet"), "conversation")
    assert error is not None
    assert error.message == message


def test_plain_texts_need_no_chat_template_and_answers_do(make_config, write, tokenizer):
    tokenizer.chat_template = None
    write([{"text": "Once upon a time"}])
    ready = prepare(make_config(stage="pt"), tokenizer)
    assert texts(tokenizer, ready.train) == ["Once upon a time<|im_end|>"]
    ready.template.apply_to(tokenizer)
    assert tokenizer.chat_template is None
    assert ready.template.end_ids(tokenizer) == []
    write(GOOD)
    with pytest.raises(DataError, match="Set template"):
        prepare(make_config(), tokenizer)


def test_a_run_hears_of_the_data_and_finds_rows_in_its_own_folder(make_config, tokenizer, llf_home):
    folder = create_run("dataset: data/rows-12.parquet\n", "rows", llf_home)
    folder.data.mkdir()
    parquet.write_table(pa.Table.from_pylist(GOOD), folder.data / "rows-12.parquet")
    writer = RunWriter(folder, 1)
    ready = prepare(make_config(dataset="data/rows-12.parquet"), tokenizer, run=writer)
    event = json.loads(folder.events.read_text().splitlines()[-1])
    assert event["type"] == "data"
    assert {key: event[key] for key in ("examples", "truncated", "dropped")} == {
        "examples": 10, "truncated": 0, "dropped": 0,
    }  # fmt: skip
    assert event["tokens"] == ready.report.tokens
    assert event["trained_tokens"] == ready.report.trained_tokens


# -- what is kept ------------------------------------------------------------------------------------------

PYTHON_VOCABULARY = {"a</w>": 0, "b</w>": 1, "a": 2, "b": 3, "ab</w>": 4, "<unk>": 5}


def kept(llf_home):
    return sorted(path.name for path in (llf_home / "cache" / "data").iterdir())


def test_the_same_data_and_settings_are_prepared_once(make_config, write, tokenizer, llf_home):
    write(GOOD)
    first, second = (prepare(make_config(), tokenizer) for _ in range(2))
    assert (first.report.cached, second.report.cached) == (False, True)
    assert second.train["input_ids"] == first.train["input_ids"]
    assert second.train["labels"] == first.train["labels"]
    assert second.report.preview == first.report.preview
    assert len(kept(llf_home)) == 1
    assert prepare(make_config(overwrite_cache=True), tokenizer).report.cached is False


@pytest.mark.parametrize(
    "values",
    [
        {"cutoff_len": 12},
        {"train_on_prompt": True},
        {"mask_history": True},
        {"max_samples": 3},
        {"default_system": "Rhyme."},
        {"template": "chatml"},
        {"eval_dataset": "data.jsonl"},
    ],
)
def test_another_setting_is_another_preparation(make_config, write, tokenizer, values):
    write(GOOD)
    prepare(make_config(), tokenizer)
    assert prepare(make_config(**values), tokenizer).report.cached is False


@pytest.mark.parametrize("name", ["train.arrow", "train.npy", "report.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"{}",
        lambda whole: whole[:90],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-9],
        lambda whole: b"PK\x03\x04" + whole[4:],
    ],
)
def test_a_damaged_file_of_the_cache_is_named_with_what_to_do(make_config, write, tokenizer, llf_home, name, damage):
    write(GOOD)
    prepare(make_config(), tokenizer)
    (path,) = (llf_home / "cache" / "data").glob(f"*/{name}")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{re.escape(str(path))} is damaged: .* Set `overwrite_cache: true`"):
        prepare(make_config(), tokenizer)
    assert prepare(make_config(overwrite_cache=True), tokenizer).report.cached is False


def test_python_tokenizers_of_other_merges_are_told_apart(tmp_path):
    found = []
    (tmp_path / "vocab.json").write_text(json.dumps(PYTHON_VOCABULARY))
    for merges in ("a b</w>", "b a</w>", "a b</w>"):
        (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
        found.append(tokenizer_hash(CTRLTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))))
    assert found[0] == found[2] != found[1]


def test_another_byte_or_another_tokenizer_is_another_preparation(make_config, write, tokenizer):
    write(GOOD)
    prepare(make_config(), tokenizer)
    write([*GOOD[:-1], {**GOOD[-1], "output": "The answer 8."}])
    assert prepare(make_config(), tokenizer).report.cached is False
    tokenizer.add_tokens(["Question"])
    again = prepare(make_config(), tokenizer)
    assert again.report.cached is False
    assert tokenizer.convert_tokens_to_ids("Question") in again.train[0]["input_ids"]


def test_a_preparation_that_fails_leaves_nothing(make_config, write, tokenizer, llf_home, monkeypatch):
    write(GOOD)
    with monkeypatch.context() as patch:
        patch.setattr("llf_core.data.example_store.content_hash", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(make_config(), tokenizer)
    assert kept(llf_home) == []
    assert prepare(make_config(), tokenizer).report.examples == 10


def prepare_in_child(tokenizer, config, results):
    results.put((os.getpid(), prepare(config, tokenizer).report.cached))


def test_two_processes_prepare_once(make_config, write, tokenizer, llf_home):
    write(GOOD * 50)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=prepare_in_child, args=(tokenizer, make_config(), results)) for _ in range(2)]
    for child in children:
        child.start()
    found = dict(results.get(timeout=250) for _ in children)
    for child in children:
        child.join()
    assert sorted(found.values()) == [False, True]
    assert len(kept(llf_home)) == 1


def test_several_workers_make_the_same_examples(make_config, write, tokenizer, monkeypatch):
    monkeypatch.setattr("llf_core.data.build.chunks_of.__defaults__", (7,))
    monkeypatch.setattr("llf_core.data.build.SERIAL_CHUNKS", 3)
    monkeypatch.setattr("llf_core.data.build.usable_cpus", lambda: 2)
    write([*GOOD * 4, {"instruction": "x"}])
    alone = prepare(make_config(), tokenizer)
    together = prepare(make_config(preprocessing_num_workers=2, overwrite_cache=True), tokenizer)
    assert together.report.cached is False
    assert together.train["input_ids"] == alone.train["input_ids"]
    assert together.train["labels"] == alone.train["labels"]
    assert together.train["index"] == alone.train["index"]
    assert together.report.fingerprint == alone.report.fingerprint
    assert together.report.dropped == alone.report.dropped == [Dropped(40, "the response is missing", "data.jsonl")]


def test_a_small_set_starts_no_worker_however_many_are_asked_for(make_config, write, tokenizer, monkeypatch):
    monkeypatch.setattr("llf_core.data.build.multiprocessing.get_context", pytest.fail)
    monkeypatch.setattr("llf_core.data.build.usable_cpus", lambda: 2)
    write(GOOD)
    assert prepare(make_config(preprocessing_num_workers=16), tokenizer).report.examples == len(GOOD)


def test_a_long_preparation_says_how_far_it_is(make_config, write, tokenizer, monkeypatch):
    monkeypatch.setattr("llf_core.runs.writer.INTERVAL_SECONDS", 0.0)
    write(GOOD)
    heard = []
    prepare(make_config(), tokenizer, progress=lambda *far: heard.append(far))
    assert heard == [("data.jsonl", 10)]


def test_a_key_tells_every_difference_apart():
    parts = [{"a": 1}, {"a": "1"}, {"a": None}, {"b": 1}, {"a": [1]}]
    assert len({caches.cache_key(part) for part in parts}) == len(parts)


def test_characters_of_several_tokens_are_shown_whole(tiny_tokenizer):
    ids = tiny_tokenizer("Größe 名").input_ids
    labels = [-100] * (len(ids) - 3) + ids[-3:]
    shown = decode_example(tiny_tokenizer, 0, ids, labels)
    assert "".join(part.text for part in shown.segments) == "Größe 名"
    assert shown.segments[-1].text == "名"


def test_a_character_in_two_segments_costs_no_other_one():
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"a": 256, "c": 257}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    ids = [256, *"😀".encode(), 257]
    shown = decode_example(PreTrainedTokenizerFast(tokenizer_object=tokenizer), 0, ids, [-100] * 4 + ids[4:])
    assert [part.text for part in shown.segments] == ["a\ufffd\ufffd\ufffd", "😀c"]


@pytest.mark.parametrize("template", ["chatml", "qwen3"])
def test_the_marks_of_named_templates_are_refused_in_calls_tools_and_reasoning(make_config, write, tokenizer, template):
    mark = "\ue002"
    asked, said = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": mark}}}
    rows = [
        {"messages": [asked, {**said, "tool_calls": [call]}], "tools": [{"name": "add"}]},
        {"messages": [asked, {**said, "reasoning_content": mark}]},
        {"messages": [asked, said], "tools": [{"name": "add", "description": mark}]},
        {"messages": [asked, said]},
    ]
    write(rows)
    report = prepare(make_config(template=template), tokenizer).report
    assert [one.index for one in report.dropped] == [0, 1, 2]
    assert {one.reason for one in report.dropped} == {"its text has one of the private-use characters U+E001 to U+E003"}


def test_a_text_of_one_token_has_nothing_to_learn(make_config, write, tokenizer):
    """No token predicts the first one: a batch of such a text alone would end the run."""
    tokenizer.eos_token = None
    write([{"text": "x"}, {"text": "hello there"}])
    report = prepare(make_config(stage="pt", packing=False), tokenizer).report
    assert [one.reason for one in report.dropped] == ["it has no tokens in the loss"]
    assert report.trained_tokens == report.tokens - 1


@pytest.mark.parametrize("name", ["train.arrow", "train.npy"])
def test_a_file_of_the_cache_that_is_missing_is_named_with_what_to_do(make_config, write, tokenizer, llf_home, name):
    write(GOOD)
    prepare(make_config(), tokenizer)
    (path,) = (llf_home / "cache" / "data").glob(f"*/{name}")
    path.unlink()
    with pytest.raises(DataError, match=rf"{re.escape(str(path))} is damaged: .* Set `overwrite_cache: true`"):
        prepare(make_config(), tokenizer)
