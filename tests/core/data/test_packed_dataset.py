"""Packed rows: every example once, the same order for the same seed, and a report of how full they are."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from llf_core.data import Collator, DataError, DataReport, PackedRows, check_packing, prepare
from llf_core.data.build import Builder
from llf_core.runs import RunReader, RunWriter, create_run

ROWS = [{"instruction": f"What is {n}?", "output": "It is " + "the sea " * (n % 7) + f"{n}."} for n in range(40)]


def examples(lengths):
    rows = [{"input_ids": [n] * size, "labels": [n] * size, "index": n} for n, size in enumerate(lengths)]
    return Dataset.from_list(rows)


def packed(lengths, capacity, seed=0):
    return PackedRows.of(examples(lengths), np.array(lengths, dtype=np.int64), capacity, seed)


def numbers(rows):
    return [[one["index"] for one in row["examples"]] for row in rows]


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=30), seed=st.integers(0, 5))
def test_rows_hold_every_example_whole_and_once(lengths, seed):
    rows = packed(lengths, 20, seed)
    assert sorted(number for row in numbers(rows) for number in row) == list(range(len(lengths)))
    for row in rows:
        assert sum(len(one["input_ids"]) for one in row["examples"]) <= 20
        for one in row["examples"]:
            assert one == {"input_ids": [one["index"]] * lengths[one["index"]], "labels": one["input_ids"]} | {
                "index": one["index"]
            }
    assert rows.filled == pytest.approx(sum(lengths) / (20 * len(rows)))
    assert 0 < rows.filled <= 1


def test_rows_by_hand():
    rows = packed([3, 7, 5, 2, 3], 10)
    assert numbers(rows) == sorted(map(sorted, numbers(rows)))
    # The two of length 3 may change places by the seed; the rest is decided.
    assert sorted(map(sorted, numbers(rows))) in ([[0, 1], [2, 3, 4]], [[0, 2, 3], [1, 4]])
    assert rows[-1] == rows[len(rows) - 1]
    assert rows.filled == 1.0
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_the_seed_decides_which_of_equal_examples_meet():
    first, again, other = (numbers(packed([5] * 200, 10, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    neighbours = sum(right - left == 1 for left, right in first)
    assert neighbours < 20  # without the seed: all 100


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_meets_every_example_once_and_the_same_for_the_same_seed(workers):
    rows = packed([3 + n % 9 for n in range(60)], 32)

    def epoch():
        loader = DataLoader(
            rows, batch_size=2, shuffle=True, num_workers=workers, generator=torch.Generator().manual_seed(3),
            collate_fn=Collator(tokenizer=None, flatten=True),
        )  # fmt: skip
        return [batch["input_ids"][0, batch["cu_seq_lens_q"][:-1].long()].tolist() for batch in loader]

    batches = epoch()
    assert sorted(number for batch in batches for number in batch) == list(range(60))
    assert epoch() == batches


def test_prepared_rows_and_their_report(make_config, write, tokenizer, tmp_path):
    write(ROWS)
    plain = prepare(make_config(cutoff_len=200), tokenizer)
    run = RunWriter(create_run("dataset: data.jsonl\n", "packed"), 1)
    ready = prepare(make_config(cutoff_len=200, packing=True), tokenizer, run=run)
    assert isinstance(ready.train, PackedRows)
    together = [one for row in ready.train for one in row["examples"]]
    assert sorted(together, key=lambda one: one["index"]) == list(plain.train)
    report = ready.report
    assert (report.examples, report.tokens) == (plain.report.examples, plain.report.tokens) == (40, report.tokens)
    assert (report.rows, report.row_capacity) == (len(ready.train), 200)
    assert report.packing_fill == pytest.approx(report.tokens / (200 * report.rows))
    full = f"{100 * report.packing_fill:.1f} % full."
    assert f"Packed into {report.rows} rows of up to 200 tokens, {full}" in report.text()
    assert "Packed" not in plain.report.text()
    assert DataReport.from_json(json.loads(json.dumps(report.json()))) == report
    (event,) = [event for event in RunReader(run.folder).events() if event["type"] == "data"]
    assert (event["examples"], event["rows"]) == (40, report.rows)
    assert "rows" not in plain.report.counts()


def test_packing_takes_what_was_prepared_without_it(make_config, write, tokenizer, monkeypatch):
    write(ROWS)
    prepare(make_config(), tokenizer)
    monkeypatch.setattr(Builder, "build", lambda *_: pytest.fail("prepared again"))
    assert prepare(make_config(packing=True), tokenizer).report.cached


def test_what_is_held_out_is_in_no_row_and_not_packed(make_config, write, tokenizer):
    write(ROWS)
    ready = prepare(make_config(packing=True, val_size=10), tokenizer)
    held = set(ready.eval["index"])
    assert isinstance(ready.eval, Dataset)
    assert len(held) == 10
    assert sorted({number for row in numbers(ready.train) for number in row} | held) == list(range(40))
    assert ready.report.tokens == sum(len(one["input_ids"]) for row in ready.train for one in row["examples"])


def test_an_epoch_of_one_step_is_a_warning(make_config, write, tokenizer):
    write(ROWS)
    said = []
    for accumulation in (1, 8):
        run = RunWriter(create_run("dataset: data.jsonl\n", "packed"), 1)
        config = make_config(
            cutoff_len=200, packing=True, per_device_train_batch_size=2, gradient_accumulation_steps=accumulation
        )
        rows = len(prepare(config, tokenizer, run=run).train)
        said.append([event for event in RunReader(run.folder).events() if event["type"] == "warning"])
    assert 2 < rows <= 16
    assert said[0] == []
    ((warning,),) = said[1:]
    assert warning["key"] == "packing"
    assert f"the 40 examples fit into {rows} rows, and a step takes 16." in warning["message"]
    # Three rows for three examples: the packing is not what makes them few.
    assert packed([10, 10, 10], 10).one_step_warning(16) is None


def test_a_model_that_cannot_keep_examples_apart_is_refused_with_the_reason():
    check_packing(packing=True, flattens=True)
    check_packing(packing=False, flattens=False)
    with pytest.raises(DataError) as caught:
        check_packing(packing=True, flattens=False, why="It has recurrent layers.")
    assert caught.value.message == (
        "`packing` is true, but with this model the examples of a row would attend to each other. It has recurrent "
        "layers. Expected `packing: false`: each example then has its own row."
    )
