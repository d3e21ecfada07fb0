"""Batches: shapes, padding, and the batch that teaches nothing."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llf_core.data import Collator, DataError
from llf_core.data.collate import split_batch, token_count


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
    with pytest.raises(DataError, match=r"no tokens in the loss \(examples 4, 17\)"):
        Collator(Padding())(rows)


def test_a_tokenizer_without_padding_pads_with_its_end_or_zero():
    tokenizer = Padding()
    tokenizer.pad_token_id = None
    row = {"input_ids": [1, 2], "labels": [-100, 2]}
    assert Collator(tokenizer)([row])["input_ids"][0, -1] == 9
    tokenizer.eos_token_id = None
    assert Collator(tokenizer)([row])["input_ids"][0, -1] == 0


def example(ids, index=0):
    return {"input_ids": ids, "labels": ids, "index": index}


def test_a_flattened_batch_by_hand():
    batch = Collator(Padding(), flatten=True)(
        [
            {"input_ids": [5, 6, 7], "labels": [5, 6, 7], "index": 0},
            {"input_ids": [8, 9], "labels": [-100, 9], "index": 1},
            {"input_ids": [4], "labels": [4], "index": 2},
        ]
    )
    assert batch.pop("input_ids").tolist() == [[5, 6, 7, 8, 9, 4]]
    assert batch.pop("labels").tolist() == [[-100, 6, 7, -100, 9, -100]]
    assert batch.pop("position_ids").tolist() == [[0, 1, 2, 0, 1, 0]]
    assert batch["cu_seq_lens_q"] is batch.pop("cu_seq_lens_k")
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert batch.pop("cu_seq_lens_q").tolist() == [0, 3, 5, 6]
    assert batch == {"max_length_q": 3, "max_length_k": 3}


def test_packed_rows_are_filled_up_behind_the_last_document():
    row = {"examples": [{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}, {"input_ids": [8, 9], "labels": [-100, 9]}]}
    collate = Collator(Padding(), flatten=True, fill=4)
    batch = collate([row])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 3, 3, 3]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, 9, -100, -100, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 0, 0]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5]
    assert token_count(batch).item() == 5
    assert [part["input_ids"].tolist() for part in split_batch(batch, 2)] == [[[5, 6, 7]], [[8, 9]]]
    assert collate(row["examples"])["input_ids"].shape == (1, 5)  # no packed row


EXAMPLES = st.lists(
    st.lists(st.tuples(st.integers(0, 500), st.booleans()), min_size=2, max_size=30), min_size=1, max_size=8
).map(
    lambda rows: [
        {
            "input_ids": [token for token, _ in row],
            # The last token of all is learned, so that there is something to learn.
            "labels": [
                token if trained or (number, place) == (len(rows) - 1, len(row) - 1) else -100
                for place, (token, trained) in enumerate(row)
            ],
            "index": number,
        }
        for number, row in enumerate(rows)
    ]
)


@given(examples=EXAMPLES, data=st.data())
def test_a_flattened_batch_cut_at_its_borders_gives_the_examples_back(examples, data):
    borders = data.draw(st.lists(st.integers(0, len(examples)), max_size=3).map(sorted))
    rows = [
        {"examples": examples[start:end]}
        for start, end in zip([0, *borders], [*borders, len(examples)], strict=True)
        if start < end
    ]
    flat, padded = Collator(Padding(), flatten=True), Collator(Padding())
    batch = flat(rows)
    for key, value in flat(examples).items():
        assert value == batch[key] if isinstance(value, int) else torch.equal(value, batch[key])
    assert {batch[key].dtype for key in ("input_ids", "labels", "position_ids")} == {torch.int64}
    cuts = batch["cu_seq_lens_q"].tolist()
    assert len(cuts) == len(examples) + 1
    for one, (start, end) in zip(examples, pairwise(cuts), strict=True):
        assert batch["input_ids"][0, start:end].tolist() == one["input_ids"]
        assert batch["labels"][0, start:end].tolist() == [-100, *one["labels"][1:]]
        assert batch["position_ids"][0, start:end].tolist() == list(range(end - start))
    assert batch["max_length_q"] == max(end - start for start, end in pairwise(cuts))
    # Packed rows may be padded too, each example in a row of its own; both kinds teach the same tokens.
    rectangle = padded(rows)
    for key, value in padded(examples).items():
        assert torch.equal(value, rectangle[key])
    assert rectangle["attention_mask"].sum() == batch["input_ids"].numel()
    assert (rectangle["labels"][:, 1:] != -100).sum() == (batch["labels"][:, 1:] != -100).sum()


def test_a_flattened_batch_without_a_trained_token_is_refused_even_if_first_tokens_have_labels():
    # In a row of its own nothing predicts a first token; behind another example nothing may predict it either.
    rows = [{"examples": [example([1], index) for index in range(3)]}, example([2], 7)]
    with pytest.raises(DataError, match=r"no tokens in the loss \(examples 0, 1, 2, 7\)"):
        Collator(Padding(), flatten=True)(rows)
    with pytest.raises(DataError, match=r"\(examples 0, 1, 2, 3, 4 and 15 more\)"):
        Collator(Padding(), flatten=True)([{"examples": [example([1], index) for index in range(20)]}])


def test_a_batch_leaves_the_examples_as_they_are():
    labels = torch.tensor([5, 6])
    row = {"input_ids": torch.tensor([5, 6]), "labels": labels}
    Collator(Padding(), flatten=True)([row])
    assert labels.tolist() == [5, 6]
