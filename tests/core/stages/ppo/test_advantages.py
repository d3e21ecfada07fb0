"""GAE and whitening against plain Python in float64."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from llf_core.stages.ppo.experience import gae, whiten

GAMMA, LAM = 0.9, 0.7


def by_definition(rewards: list[float], values: list[float]) -> list[float]:
    """`A_t = Σ_k (gamma λ)^k δ_{t+k}`, summed term by term."""
    after = [*values[1:], 0.0]
    deltas = [reward + GAMMA * later - value for reward, later, value in zip(rewards, after, values, strict=True)]
    return [
        math.fsum((GAMMA * LAM) ** ahead * deltas[place + ahead] for ahead in range(len(deltas) - place))
        for place in range(len(deltas))
    ]


def test_gae_is_the_sum_of_discounted_errors() -> None:
    generator = torch.Generator().manual_seed(3)
    lengths = [5, 1, 3]
    rewards, values = (torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    advantages, returns = gae(rewards, values, mask, GAMMA, LAM)
    for row, length in enumerate(lengths):
        own_values = values[row, :length].tolist()
        expected = by_definition(rewards[row, :length].tolist(), own_values)
        assert advantages[row, :length].tolist() == pytest.approx(expected, rel=1e-12)
        wanted = [advantage + value for advantage, value in zip(expected, own_values, strict=True)]
        assert returns[row, :length].tolist() == pytest.approx(wanted, rel=1e-12)
        assert not advantages[row, length:].any()
        assert not returns[row, length:].any()


def test_gae_without_discount_is_what_follows_less_the_value() -> None:
    rewards = torch.tensor([[-0.5, 0.25, 2.0]])
    values = torch.tensor([[1.0, -1.0, 0.5]])
    advantages, returns = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), 1.0, 1.0)
    assert returns.tolist() == [[1.75, 2.25, 2.0]]
    assert advantages.tolist() == [[0.75, 3.25, 1.5]]


def test_gae_never_reads_padding() -> None:
    mask = torch.tensor([[True, True, False]])
    clean = gae(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[3.0, 4.0, 0.0]]), mask, GAMMA, LAM)
    dirty = gae(torch.tensor([[1.0, 2.0, math.nan]]), torch.tensor([[3.0, 4.0, math.inf]]), mask, GAMMA, LAM)
    assert torch.equal(clean[0], dirty[0])
    assert torch.equal(clean[1], dirty[1])


def test_whitened_values_have_mean_0_and_deviation_1() -> None:
    values = torch.tensor([[1.0, 2.0, 77.0], [4.0, 9.0, -5.0]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    kept = [1.0, 2.0, 4.0, 9.0]
    mean, deviation = statistics.fmean(kept), statistics.stdev(kept)
    assert whiten(values, mask)[mask].tolist() == pytest.approx([(one - mean) / deviation for one in kept], rel=1e-6)
    unmoved = whiten(values, mask, shift_mean=False)
    assert unmoved[mask].tolist() == pytest.approx([(one - mean) / deviation + mean for one in kept], rel=1e-6)
    assert not unmoved[~mask].any()


def test_whitening_two_shares_is_whitening_the_whole() -> None:
    whole = torch.tensor([1.0, 2.0, 4.0, 9.0, 3.0])
    everywhere = torch.ones(5, dtype=torch.bool)
    first, second = whole[:2], whole[2:]
    mean = whole.double().mean()

    def add_other(own: torch.Tensor) -> torch.Tensor:
        """What `second` would add in its own process."""
        if own.dim():
            return own + torch.stack([torch.tensor(3.0, dtype=torch.float64), second.double().sum()])
        return own + (second.double() - mean).square().sum()

    share = whiten(first, everywhere[:2], all_reduce=add_other)
    assert share.tolist() == pytest.approx(whiten(whole, everywhere)[:2].tolist(), rel=1e-6)


def test_one_value_is_only_shifted() -> None:
    assert whiten(torch.tensor([5.0]), torch.tensor([True])).tolist() == [0.0]
    assert whiten(torch.tensor([5.0]), torch.tensor([True]), shift_mean=False).tolist() == [5.0]
