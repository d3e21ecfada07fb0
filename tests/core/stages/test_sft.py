"""The SFT objective against numbers worked out by hand and against PyTorch's own mean."""

import math

import torch
from torch.nn import functional

from llf_core.stages.sft import shifted_targets, token_nll_sum


def test_targets_move_one_to_the_left_and_the_last_position_predicts_nothing():
    labels = torch.tensor([[-100, 5, 6], [7, -100, 8]])
    assert shifted_targets(labels).tolist() == [[5, 6, -100], [-100, 8, -100]]


def test_loss_of_uniform_logits_is_log_vocab_a_token():
    labels = torch.tensor([[-100, 1, 2, -100]])
    total = token_nll_sum(torch.zeros(1, 4, 8), labels)
    assert math.isclose(total.item(), 2 * math.log(8), rel_tol=1e-6)


def test_loss_by_hand():
    # Position 0 predicts token 1: logits (0, ln 3) give it 3/4. Position 1 predicts nothing.
    logits = torch.tensor([[[0.0, math.log(3.0)], [9.0, 9.0]]])
    assert math.isclose(token_nll_sum(logits, torch.tensor([[-100, 1]])).item(), math.log(4 / 3), rel_tol=1e-6)


def test_loss_and_gradient_equal_the_plain_way_in_float64():
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 11, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 11, (3, 7))
    labels[torch.rand(3, 7) < 0.4] = -100
    ours = token_nll_sum(logits, labels)
    (gradient,) = torch.autograd.grad(ours, logits)
    plain = functional.cross_entropy(
        logits[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1), ignore_index=-100, reduction="sum"
    )
    (expected,) = torch.autograd.grad(plain, logits)
    torch.testing.assert_close(ours.double(), plain, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


def test_label_smoothing_by_hand():
    # Uniform over 4: every term of the smoothed target costs ln 4, so smoothing changes nothing there.
    assert math.isclose(
        token_nll_sum(torch.zeros(1, 2, 4), torch.tensor([[0, 3]]), 0.1).item(), math.log(4), rel_tol=1e-6
    )
    # (1 - 0.2) * ln(4/3) + 0.2 * mean(ln 4, ln 4/3)
    logits = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]])
    expected = 0.8 * math.log(4 / 3) + 0.2 * (math.log(4) + math.log(4 / 3)) / 2
    assert math.isclose(token_nll_sum(logits, torch.tensor([[-100, 1]]), 0.2).item(), expected, rel_tol=1e-6)
