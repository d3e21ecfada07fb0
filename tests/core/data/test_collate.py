"""Batches: shapes, padding, and the batch that teaches nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llf_core.data import Collator, DataError


class Padding:
    pad_token_id = 3
    eos_token_id = 9


def test_a_batch_by_hand():
    batch = Collator(Padding())(
        [
            {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "index": 0},
            {"input_ids": [8], "labels": [-100], "index": 1},
        ]
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7, 3, 3, 3, 3, 3], [8, 3, 3, 3, 3, 3, 3, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7] + [-100] * 5, [-100] * 8]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=6))
def test_padding_is_seen_by_nobody(lengths):
    rows = [{"input_ids": list(range(1, size + 1)), "labels": list(range(1, size + 1))} for size in lengths]
    batch = Collator(Padding())(rows)
    assert batch["input_ids"].shape == (len(lengths), -(-max(lengths) // 8) * 8)
    for row, size in enumerate(lengths):
        assert batch["attention_mask"][row].tolist() == [1] * size + [0] * (batch["labels"].shape[1] - size)
        assert batch["labels"][row, size:].eq(-100).all()
        assert batch["input_ids"][row, :size].tolist() == rows[row]["input_ids"]


def test_a_batch_without_a_trained_token_names_its_examples():
    rows = [{"input_ids": [1, 2], "labels": [1, -100], "index": 4}, {"input_ids": [1], "labels": [1], "index": 17}]
    with pytest.raises(DataError, match=r"no token to learn from \(examples 4, 17\)"):
        Collator(Padding())(rows)


def test_a_tokenizer_without_padding_pads_with_its_end_or_zero():
    tokenizer = Padding()
    tokenizer.pad_token_id = None
    row = {"input_ids": [1, 2], "labels": [-100, 2]}
    assert Collator(tokenizer)([row])["input_ids"][0, -1] == 9
    tokenizer.eos_token_id = None
    assert Collator(tokenizer)([row])["input_ids"][0, -1] == 0
