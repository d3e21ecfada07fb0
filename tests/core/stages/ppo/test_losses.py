"""The clipped losses against values worked out by hand, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from llf_core.stages.ppo.experience import approximate_kl, explained_variance, policy_losses, value_losses

# Ratios 1, 1.5, 1.5, 0.5, 0.5 with advantages 2, 2, -2, 2, -2 and a range of 0.2.
RATIOS = torch.tensor([1.0, 1.5, 1.5, 0.5, 0.5], dtype=torch.float64)
ADVANTAGES = torch.tensor([2.0, 2.0, -2.0, 2.0, -2.0], dtype=torch.float64)


def test_policy_loss_by_hand() -> None:
    old = torch.full((5,), -1.3, dtype=torch.float64)
    found = policy_losses(old + RATIOS.log(), old, ADVANTAGES, 0.2)
    # 1 · 2; min(3, 2.4); min(-3, -2.4); min(1, 1.6); min(-1, -1.6); each negated
    assert found.losses.tolist() == pytest.approx([-2.0, -2.4, 3.0, -1.0, 1.6], rel=1e-12)
    assert found.clipped.tolist() == [False, True, False, False, True]


def test_a_clipped_token_has_no_gradient() -> None:
    old = torch.full((5,), -1.3, dtype=torch.float64)
    log_probs = (old + RATIOS.log()).requires_grad_()
    policy_losses(log_probs, old, ADVANTAGES, 0.2).losses.sum().backward()
    # of the others -A · ratio
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([-2.0, 0.0, 3.0, -1.0, 0.0], rel=1e-12)


def test_value_loss_by_hand() -> None:
    values = torch.tensor([1.0, 1.0, 0.1, -0.5], dtype=torch.float64)
    old = torch.zeros(4, dtype=torch.float64)
    returns = torch.tensor([2.0, 0.9, 0.4, 0.5], dtype=torch.float64)
    found = value_losses(values, old, returns, 0.2)
    # clipped to 0.2, 0.2, 0.1, -0.2: ½ max(1, 3.24), ½ max(0.01, 0.49), ½ 0.09 twice, ½ max(1, 0.49)
    assert found.losses.tolist() == pytest.approx([1.62, 0.245, 0.045, 0.5], rel=1e-12)
    assert found.clipped.tolist() == [True, True, False, False]


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(7)
    old, advantages, returns = (torch.randn(12, generator=generator, dtype=torch.float64) for _ in range(3))
    now = (old + 0.3 * torch.randn(12, generator=generator, dtype=torch.float64)).requires_grad_()
    assert gradcheck(lambda x: policy_losses(x, old, advantages, 0.2).losses, now)
    assert gradcheck(lambda x: value_losses(x, old, returns, 0.2).losses, now)


def test_approximate_kl_is_the_kl_on_average() -> None:
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    q = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    exact = math.fsum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
    estimates = approximate_kl(q.log(), p.log())
    assert float((p * estimates).sum()) == pytest.approx(exact, rel=1e-12)
    assert (estimates >= 0).all()


def test_explained_variance() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert float(explained_variance(returns, returns)) == 1.0
    assert float(explained_variance(torch.full((4,), 9.0), returns)) == 0.0
    # errors 1, 0, 0, -1: variance 0.5 of 1.25
    assert float(explained_variance(torch.tensor([0.0, 2.0, 3.0, 5.0]), returns)) == pytest.approx(0.6)
