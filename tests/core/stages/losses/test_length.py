"""LD-DPO's sums: what an answer has beyond its partner's length counts α."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llf_core.stages.preference_losses import desensitized_sums


def test_by_hand():
    # Chosen: -1 -2 -4, rejected: -8 -16, so two tokens of each are shared, and the third counts a quarter.
    log_probs = -torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    answers = torch.tensor([0, 0, 0, 1, 1])
    assert desensitized_sums(log_probs, answers, 1, 0.25).tolist() == [-4.0, -24.0]
    assert desensitized_sums(log_probs, answers, 1, 1.0).tolist() == [-7.0, -24.0]
    assert desensitized_sums(log_probs, answers, 1, 0.0).tolist() == [-3.0, -24.0]


def test_an_empty_answer_leaves_nothing_shared():
    log_probs = torch.tensor([-1.0, -2.0, -4.0])
    assert desensitized_sums(log_probs, torch.tensor([0, 0, 3]), 2, 0.5).tolist() == [-1.5, 0.0, 0.0, -2.0]
    assert desensitized_sums(log_probs[:0], torch.tensor([], dtype=torch.int64), 1, 0.5).tolist() == [0.0, 0.0]


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=4), seed=st.integers(0, 99)
)
def test_answers_in_any_order(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    flat = [length for pair in lengths for length in pair]
    tokens = [torch.randn(length, generator=generator, dtype=torch.float64) for length in flat]
    expected = []
    for number, own in enumerate(tokens):
        shared = min(len(own), len(tokens[number ^ 1]))
        expected.append(own[:shared].sum() + 0.3 * own[shared:].sum())
    # Tokens of the answers are dealt out at random, those of one answer in their order.
    answers = torch.arange(len(flat)).repeat_interleave(torch.tensor(flat))
    answers = answers[torch.randperm(len(answers), generator=generator)]
    left = [iter(own) for own in tokens]
    log_probs = torch.tensor([next(left[number]) for number in answers.tolist()], dtype=torch.float64)
    found = desensitized_sums(log_probs, answers, len(lengths), 0.3)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_the_weight(dtype):
    log_probs = torch.tensor([-1.0, -2.0, -4.0, -8.0], dtype=dtype, requires_grad=True)
    sums = desensitized_sums(log_probs, torch.tensor([1, 1, 1, 0]), 1, 0.25)
    assert sums.dtype == dtype
    (sums * torch.tensor([2.0, 3.0])).sum().backward()
    assert log_probs.grad.tolist() == [3.0, 0.75, 0.75, 2.0]
