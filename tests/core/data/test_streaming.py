"""Streams: the examples of a preparation, made while they are asked for."""

import gzip
import json
from itertools import islice

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from llf_core.config import ConfigError, RunConfig
from llf_core.data import DataError, prepare
from llf_core.data.streaming import STOPPING_STRATEGIES, interleave_order, interleave_streams, shuffle_buffer

ROWS = [
    {"instruction": f"Say {number} in words", "output": f"It is {number} " * (1 + number % 4)} for number in range(40)
]
STREAMED = {"streaming": True, "max_steps": 5, "buffer_size": 8}


@pytest.fixture
def streamed(make_config, tokenizer):
    """Prepares with streaming."""

    def open_stream(dataset="data.jsonl", **values):
        return prepare(make_config(dataset, **(STREAMED | values)), tokenizer)

    return open_stream


@pytest.fixture
def whole(make_config, tokenizer):
    """Prepares without."""

    def prepare_all(dataset="data.jsonl", **values):
        return prepare(make_config(dataset, **values), tokenizer)

    return prepare_all


def told(rows):
    return [(row["index"], tuple(row["input_ids"]), tuple(row["labels"])) for row in rows]


def test_each_pass_has_every_example_once_in_an_order_of_its_own(write, streamed, whole):
    write(ROWS)
    examples = sorted(told(whole().train))
    stream = streamed().train
    first, second = told(islice(stream, 40)), told(islice(stream, 40, 80))
    assert sorted(first) == sorted(second) == examples
    assert first != second
    assert first not in (examples, second)
    assert told(islice(streamed().train, 80)) == first + second
    assert told(islice(streamed(seed=7).train, 40)) != first


def test_a_buffer_of_one_keeps_the_order(write, streamed, whole):
    write(ROWS)
    assert told(islice(streamed(buffer_size=1).train, 40)) == told(whole().train)


@given(st.lists(st.integers(), max_size=40), st.integers(1, 50), st.integers(0, 3))
def test_shuffling_loses_and_invents_nothing_and_reaches_no_farther_than_the_buffer(items, size, seed):
    found = list(shuffle_buffer(enumerate(items), size, np.random.default_rng(seed)))
    assert sorted(found) == list(enumerate(items))
    assert all(number < place + size for place, (number, _) in enumerate(found))


def test_what_became_of_the_records_is_counted_once(write, streamed, whole):
    rows = [*ROWS[:5], {"instruction": "", "output": "x"}, *ROWS[5:], {"instruction": "a", "output": " "}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write(text.replace("\n", "\n{broken\n", 1) + "[1]\n")
    expected = whole(cutoff_len=24).report
    found = streamed(cutoff_len=24)
    assert found.report.examples == 0
    list(islice(found.train, 200))
    list(islice(found.train, 50))
    for name in ("examples", "tokens", "trained_tokens", "truncated", "dropped", "broken", "sets", "readings"):
        assert getattr(found.report, name) == getattr(expected, name), name
    assert expected.dropped
    assert expected.truncated
    assert len(expected.broken) == 2
    assert "these counts cover the records read so far" in found.report.text()
    assert [shown.text() for shown in found.report.preview] == [shown.text() for shown in expected.preview]


def test_rows_are_packed_from_the_buffer(write, streamed, whole):
    write(ROWS)
    examples = told(whole().train)
    rows = list(islice(streamed(packing=True, cutoff_len=64, buffer_size=20).train, 200))
    members = [told(row["examples"]) for row in rows]
    assert all(sum(len(ids) for _, ids, _ in row) <= 64 for row in members)
    flat = [example for row in members for example in row]
    assert sorted(flat[:20]) != sorted(examples[:20])  # shuffled before they are packed
    assert sorted(flat[:40]) == sorted(examples)
    assert sorted(flat[40:80]) == sorted(examples)


def test_the_first_examples_are_held_out(write, streamed):
    write(ROWS)
    ready = streamed(val_size=5)
    assert [row["index"] for row in ready.eval] == [0, 1, 2, 3, 4]
    assert {row["index"] for row in islice(ready.train, 105)} == set(range(5, 40))
    assert (ready.report.examples, ready.report.eval_examples) == (35, 5)


def test_another_set_to_evaluate_on_is_prepared_beforehand(write, streamed):
    write(ROWS)
    write([*ROWS[:3], {"instruction": "", "output": ""}], "eval.jsonl")
    ready = streamed(eval_dataset="eval.jsonl")
    assert len(ready.eval) == 3
    list(islice(ready.train, 50))
    assert [(counts.dataset, counts.examples) for counts in ready.report.sets] == [
        ("data.jsonl", 40),
        ("eval.jsonl", 3),
    ]
    assert [entry.dataset for entry in ready.report.dropped] == ["eval.jsonl"]


def gzipped(rows):
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.parquet", "rows.arrow", "rows.csv"])
@pytest.mark.parametrize("remote", [False, True])
def test_files_of_each_kind_here_and_in_a_cloud(tmp_path, streamed, llf_home, name, remote):
    table, path = pa.Table.from_pylist(ROWS), tmp_path / name
    if name.endswith("gz"):
        path.write_bytes(gzipped(ROWS))
    elif name.endswith("parquet"):
        parquet.write_table(table, path)
    elif name.endswith("arrow"):
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table)
    else:
        path.write_text("instruction,output\n" + "".join(f"{row['instruction']},{row['output']}\n" for row in ROWS))
    where = name
    if remote:
        where = f"memory://streamed/{name}"
        with fsspec.open(where, "wb") as file:
            file.write(path.read_bytes())
    found = streamed(where)
    assert sorted(row["index"] for row in islice(found.train, 40)) == list(range(40))
    assert not (llf_home / "cache" / "cloud").exists()
    assert not list((llf_home / "cache").glob("data/*"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://streamed/none.jsonl", "There is no file memory://streamed/none.jsonl"),
        ("nonsense://a/b.jsonl", "nonsense://a/b.jsonl cannot be opened: .*use a protocol that fsspec supports"),
        ("memory://streamed/none.doc", "unknown type"),
    ],
)
def test_a_file_that_a_cloud_does_not_give_is_one_sentence(streamed, url, message):
    with pytest.raises(DataError, match=message):
        streamed(url)


def test_records_that_give_nothing_end_the_stream_where_that_is_asked_for(write, streamed):
    write([*ROWS, {"instruction": "a", "output": " "}])
    ready = streamed(stop_on_dropped=True)
    with pytest.raises(
        DataError, match=r"1 record gives no example, and `stop_on_dropped` is true: data.jsonl line 41"
    ):
        list(islice(ready.train, 200))


def test_a_stream_of_which_nothing_is_left_says_so(write, streamed):
    write(ROWS[:3])
    with pytest.raises(DataError, match="val_size 3 holds out every example"):
        next(iter(streamed(val_size=3).train))
    write([{"instruction": "a", "output": " "}] * 3)
    with pytest.raises(DataError, match=r"No example of data.jsonl is usable"):
        next(iter(streamed().train))


def test_a_draw_among_all_records_cannot_be_streamed(write, streamed, tmp_path):
    write(ROWS)
    write(json.dumps({"few": {"file_name": "data.jsonl", "num_samples": 3}}), "dataset_info.json")
    with pytest.raises(DataError, match="few is streamed, and its entry draws num_samples 3"):
        streamed("few", dataset_dir=str(tmp_path))


def test_a_look_at_a_stream_prepares_its_beginning(write, make_config, tokenizer):
    write(ROWS)
    ready = prepare(make_config(**STREAMED), tokenizer, peek=True)
    assert [row["index"] for row in ready.train] == list(range(8))
    assert ready.report.streamed


@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    strategy=st.sampled_from(["concat", *STOPPING_STRATEGIES]),
    weights=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    seed=st.integers(0, 5),
)
def test_turns_are_those_of_the_library_that_knows_the_lengths(lengths, strategy, weights, seed):
    sets = np.repeat(np.arange(len(lengths)), lengths)
    total = sum(weights[: len(lengths)])
    shares = tuple(weight / total for weight in weights[: len(lengths)]) if total else ()
    if any(shares) and any(share == 0 and length for share, length in zip(shares, lengths, strict=True)):
        return  # a set that never takes its turn never ends: the library would not either
    starts = np.cumsum([0, *lengths])
    begins = [
        lambda start=start, length=length: iter(range(start, start + length))
        for start, length in zip(starts, lengths, strict=False)
    ]
    expected = interleave_order(sets, strategy, shares, seed).tolist()
    assert [int(one) for one in interleave_streams(begins, strategy, shares, seed)] == expected


def test_a_data_set_that_is_emptied_while_it_is_read_is_told_apart_from_a_fault_of_llf():
    emptied = iter([iter("a"), iter("")])
    with pytest.raises(DataError, match="no examples any more"):
        list(interleave_streams([lambda: next(emptied), lambda: iter("bcd")], "interleave_over", (), 0))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"streaming": True}, "streaming"),
        (STREAMED | {"val_size": 0.1}, "val_size"),
        (STREAMED | {"drop_duplicates": True}, "drop_duplicates"),
        (STREAMED | {"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy"),
    ],
)
def test_what_a_stream_cannot_do_is_said_before_the_start(values, key):
    with pytest.raises(ConfigError, match=r"[Ss]treamed") as caught:
        RunConfig.load({"model_name_or_path": "a/b", "stage": "sft", "dataset": "llf_demo", **values})
    assert [problem.key for problem in caught.value.problems] == [key]
