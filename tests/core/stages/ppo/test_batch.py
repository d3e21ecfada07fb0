"""Where the tokens of answers are, written down by hand."""

from __future__ import annotations

import torch

from llf_core.stages.ppo.batch import answer_batch, pad_to_rows

PROMPTS, ANSWERS = [[5, 6], [7]], [[8, 9], [11]]


def test_flattened(tiny_tokenizer):
    batch = answer_batch(PROMPTS, ANSWERS, tiny_tokenizer, flatten=True)
    assert batch["input_ids"].tolist() == [[5, 6, 8, 9, 7, 11]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 4, 6]
    assert batch["predictors"].tolist() == [1, 2, 4]
    assert batch["targets"].tolist() == [8, 9, 11]
    assert batch["answers"].tolist() == [0, 0, 1]
    assert batch["ends"].tolist() == [3, 5]
    assert batch["groups"] == 2
    assert "labels" not in batch


def test_padded(tiny_tokenizer):
    batch = answer_batch(PROMPTS, ANSWERS, tiny_tokenizer, flatten=False)
    assert batch["input_ids"].shape == (2, 8)
    ids = batch["input_ids"].flatten()
    assert batch["predictors"].tolist() == [1, 2, 8]
    assert ids[batch["predictors"] + 1].tolist() == batch["targets"].tolist() == [8, 9, 11]
    assert batch["ends"].tolist() == [3, 9]
    assert batch["attention_mask"].sum(1).tolist() == [4, 2]


def test_a_rectangle_and_back():
    flat = torch.tensor([1.0, 2.0, 3.0, 4.0])
    rectangle, mask = pad_to_rows(flat, torch.tensor([1, 3]))
    assert rectangle.tolist() == [[1, 0, 0], [2, 3, 4]]
    assert rectangle[mask].tolist() == flat.tolist()
