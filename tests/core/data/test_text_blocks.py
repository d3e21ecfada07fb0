"""Texts of `pt` are joined and cut into blocks, as LLaMA-Factory does; its code is the second implementation here."""

import json
from itertools import chain, islice

import numpy as np
import pytest
from datasets import Dataset

from llf_core.config import validate
from llf_core.data import prepare
from llf_core.data.example_store import COUNT_COLUMNS
from llf_core.data.inspect import Inspection
from llf_core.data.packing import plan_blocks, write_blocks
from llf_core.data.text_lengths import lengths_from_text
from llf_core.estimate import Forecaster, device_of, find_devices

WORDS = "the sea and the ship of the old man are near "
TEXTS = [f"{number} " + WORDS * (1 + number % 12) for number in range(60)]


def llama_factorys(texts, size, shards, first=None):
    """LLaMA-Factory's `PretrainDatasetProcessor` under `datasets.Dataset.map` with so many processes."""

    def group(batch):
        whole = list(chain(*batch["ids"]))
        total = len(whole) // size * size
        blocks = [whole[start : start + size] for start in range(0, total, size)]
        for block in blocks:
            block[0] = block[0] if first is None else first
        return {"blocks": blocks}

    given = Dataset.from_list([{"ids": ids} for ids in texts])
    parts = [given.shard(shards, number, contiguous=True) for number in range(min(shards, len(texts)))]
    return [block for part in parts for block in part.map(group, batched=True, remove_columns=["ids"])["blocks"]]


@pytest.mark.parametrize(("count", "shards"), [(1, 1), (37, 4), (999, 1), (1000, 1), (1001, 1), (2503, 2)])
def test_blocks_are_llama_factorys(tmp_path, count, shards):
    random = np.random.default_rng(count)
    texts = [random.integers(3, 99, random.integers(1, 60)).tolist() for _ in range(count)]
    texts[0] += [7] * 40  # fills a block alone
    table = Dataset.from_list([{"input_ids": ids, "index": at} for at, ids in enumerate(texts)])
    counts = np.zeros((count, len(COUNT_COLUMNS)), dtype=np.int64)
    lengths = np.array([len(ids) for ids in texts])
    write_blocks(tmp_path / "a", table, counts, plan_blocks(lengths, 32, shards), 1)
    made = Dataset.from_file(str(tmp_path / "a"))
    assert made["input_ids"][:] == made["labels"][:] == llama_factorys(texts, 32, shards, 1)


@pytest.fixture
def rows(write, tokenizer):
    """Texts of 1 to 12 times ten words, of which those of more than 64 tokens fit in no block; their tokens too."""
    write([{"text": text} for text in TEXTS])
    return [tokenizer(text + tokenizer.eos_token, add_special_tokens=False).input_ids for text in TEXTS]


def test_texts_are_joined_unless_packing_is_false(make_config, rows, tokenizer):
    assert max(map(len, rows)) > 64
    wanted = llama_factorys(rows, 64, 3)
    config = make_config(stage="pt", cutoff_len=64, preprocessing_num_workers=3)
    for packing in (None, True):
        ready = prepare(config.replace(packing=packing), tokenizer)
        assert ready.train["input_ids"][:] == wanted
        assert ready.report.examples == len(wanted)
        assert ready.report.tokens == 64 * len(wanted)
        assert (ready.report.joined, ready.report.left_out) == (60, sum(map(len, rows)) - 64 * len(wanted))
    apart = prepare(config.replace(packing=False), tokenizer)
    assert apart.train["input_ids"][:] == [ids[at : at + 64] for ids in rows for at in range(0, len(ids), 64)]


def test_held_out_texts_are_joined_apart(make_config, rows, tokenizer):
    ready = prepare(make_config(stage="pt", cutoff_len=64, val_size=20), tokenizer)
    ends = tokenizer.eos_token_id
    kept, held = (sum(ids.count(ends) for ids in one["input_ids"]) for one in (ready.train, ready.eval))
    assert 36 <= kept <= 40
    assert 18 <= held <= 20
    assert {len(ids) for ids in [*ready.train["input_ids"], *ready.eval["input_ids"]]} == {64}


def test_texts_that_fill_no_block_give_a_shorter_one(make_config, rows, tokenizer):
    ready = prepare(make_config(stage="pt", cutoff_len=100_000, preprocessing_num_workers=4), tokenizer)
    assert ready.train["input_ids"][:] == [list(chain(*rows))]


def test_streamed_texts_are_joined(make_config, rows, tokenizer):
    ready = prepare(make_config(stage="pt", cutoff_len=64, streaming=True, buffer_size=1, max_steps=2), tokenizer)
    wanted = llama_factorys(rows, 64, 1)
    assert [list(row["input_ids"]) for row in islice(ready.train, len(wanted))] == wanted


def test_forecast_and_inspect_count_blocks(make_config, rows, tokenizer):
    config = make_config(stage="pt", cutoff_len=64, num_train_epochs=2, per_device_train_batch_size=1)
    blocks = len(prepare(config, tokenizer).train)
    known = lengths_from_text(config)
    # A token for each 4.3 letters and five a text, of which half a block is left out.
    assert known.examples == round(sum(round(len(text) / 4.3) + 5 for text in TEXTS) / 64 - 0.5)
    assert known.lengths.tolist() == [64]
    forecast = Forecaster(config, known, device_of(config, find_devices()))
    assert forecast.steps() == 2 * known.examples / config.training.gradient_accumulation_steps
    assert forecast.mean_tokens() == 64 * config.training.gradient_accumulation_steps
    inspection = Inspection.open(config, tokenizer)
    assert inspection.overview()["examples"] == blocks
    assert inspection.example(blocks - 1)["tokens"] == 64
    assert inspection.lengths()["cutoffs"] == []


def test_a_note_says_where_long_texts_are_split(make_config):
    notes = [
        [one.message for one in validate({"dataset": "x", "stage": "pt", "packing": packing}).problems]
        for packing in (None, False)
    ]
    assert "LLaMA-Factory truncates it" not in json.dumps(notes[0])
    assert "LLaMA-Factory truncates it" in json.dumps(notes[1])
