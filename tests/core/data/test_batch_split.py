"""Batches cut in parts: nothing is lost, nothing moves, and the parts are as even as documents allow."""

from itertools import combinations, pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from llf_core.data.collate import balanced_cuts, document_count, split_batch

lengths_of = st.lists(st.integers(1, 30), min_size=1, max_size=9)


def flattened(lengths):
    total = sum(lengths)
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    positions = torch.cat([torch.arange(length) for length in lengths])
    return {
        "input_ids": torch.arange(total)[None] + 100,
        "labels": torch.where(positions == 0, -100, torch.arange(total))[None],
        "position_ids": positions[None],
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


def padded(lengths):
    width = -(-max(lengths) // 8) * 8
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    ids = torch.arange(mask.numel()).view(mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(mask == 1, ids, -100)}


def test_a_flattened_batch_by_hand():
    first, second = split_batch(flattened([4, 2, 3]), 2)
    assert first["input_ids"].tolist() == [[100, 101, 102, 103]]
    assert (first["cu_seq_lens_q"].tolist(), first["max_length_q"]) == ([0, 4], 4)
    assert second["labels"].tolist() == [[-100, 5, -100, 7, 8]]
    assert second["position_ids"].tolist() == [[0, 1, 0, 1, 2]]
    assert (second["cu_seq_lens_k"].tolist(), second["max_length_k"]) == ([0, 2, 5], 3)
    assert second["cu_seq_lens_q"].dtype == torch.int32


def test_a_padded_batch_by_hand():
    first, second = split_batch(padded([9, 3, 5]), 2)
    assert first["input_ids"].shape == (2, 16)
    assert second["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]


@given(lengths_of, st.integers(1, 12))
def test_flattened_parts_put_together_are_the_batch(lengths, parts):
    whole = flattened(lengths)
    made = split_batch(whole, parts)
    assert len(made) == min(parts, len(lengths))
    for key in ("input_ids", "labels", "position_ids"):
        assert torch.equal(torch.cat([part[key] for part in made], 1), whole[key])
    found = [(b - a).item() for part in made for a, b in pairwise(part["cu_seq_lens_q"])]
    assert found == lengths
    for part in made:
        own = [(b - a).item() for a, b in pairwise(part["cu_seq_lens_q"])]
        assert part.keys() == whole.keys()
        assert part["cu_seq_lens_k"] is part["cu_seq_lens_q"]
        assert part["input_ids"].shape == (1, sum(own))
        assert part["max_length_q"] == part["max_length_k"] == max(own)
        assert document_count(part) == len(own)


@given(lengths_of, st.integers(1, 12))
def test_padded_parts_put_together_are_the_batch(lengths, parts):
    whole = padded(lengths)
    made = split_batch(whole, parts)
    assert len(made) == min(parts, len(lengths))
    rows = [len(part["input_ids"]) for part in made]
    assert sum(rows) == len(lengths)
    assert max(rows) - min(rows) <= 1
    place = 0
    for part in made:
        taken = slice(place, place := place + len(part["input_ids"]))
        width = part["input_ids"].shape[1]
        assert width == -(-max(lengths[taken]) // 8) * 8
        for key in whole:
            assert torch.equal(part[key], whole[key][taken, :width])
        assert whole["attention_mask"][taken, width:].sum() == 0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.data())
def test_no_other_cut_has_a_smaller_largest_part(lengths, data):
    parts = data.draw(st.integers(1, len(lengths)))

    def largest(cuts):
        return max(sum(lengths[a:b]) for a, b in pairwise(cuts))

    best = min(largest((0, *inner, len(lengths))) for inner in combinations(range(1, len(lengths)), parts - 1))
    cuts = balanced_cuts(lengths, parts)
    assert len(cuts) == parts + 1
    assert cuts == sorted(set(cuts))
    assert largest(cuts) == best
