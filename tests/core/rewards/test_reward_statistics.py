"""Statistics of rewards by hand, and rank correlations against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llf_core.rewards.reward_statistics import (
    RewardedCompletion,
    groups_without_variance,
    rank_correlation,
    reward_statistics,
)


def completion(group: int, reward: float | None) -> RewardedCompletion:
    return RewardedCompletion(group, "Why?", "Because.", 2, truncated=False, reward=reward, rewards={})


def test_a_distribution_by_hand():
    found = reward_statistics("brief", [1.0, None, 3.0, 2.0], [10, 99, 30, 20])
    assert (found.scored, found.skipped) == (3, 1)
    assert (found.mean, found.low, found.high) == (2.0, 1.0, 3.0)
    assert found.std == pytest.approx(math.sqrt(2 / 3))
    assert found.length_correlation == pytest.approx(1.0)
    assert sum(found.counts) == 3
    assert len(found.edges) == len(found.counts) + 1
    assert (found.edges[0], found.edges[-1]) == (1.0, 3.0)


def test_a_function_that_never_applies_has_no_numbers():
    found = reward_statistics("never", [None, None], [1, 2])
    assert (found.scored, found.skipped, found.counts) == (0, 2, ())
    assert math.isnan(found.mean)
    assert math.isnan(found.length_correlation)


def test_a_constant_reward_has_no_correlation():
    assert math.isnan(reward_statistics("one", [1.0, 1.0, 1.0], [1, 2, 3]).length_correlation)


def test_rank_correlations_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(3)
    for ties in (3, 50):
        one, other = (random.integers(0, ties, 40).astype(float) for _ in range(2))
        assert rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)


def test_groups_whose_rewards_are_equal_are_counted():
    given = [completion(0, 1.0), completion(0, 1.0), completion(1, 1.0), completion(1, 0.0), completion(2, 1.0)]
    given += [completion(3, None), completion(3, None), completion(3, 0.5), completion(3, 0.5)]
    assert groups_without_variance(given) == (2, 3)  # a single reward cannot be compared


@pytest.mark.parametrize("values", [[0.3, 0.1 + 0.2], [1e20, 1e20], [-2.0, -2.0]])
def test_rewards_that_differ_by_rounding_have_a_histogram(values):
    found = reward_statistics("sum", values, [1, 2])
    assert sum(found.counts) == 2
    assert sorted(set(found.edges)) == list(found.edges)
    assert found.edges[0] < min(values) <= max(values) < found.edges[-1]


def test_equal_rewards_do_not_vary_by_rounding_and_no_rewards_correlate_in_silence(recwarn):
    assert groups_without_variance([completion(0, 1e9 + 0.1)] * 7) == (1, 1)
    assert math.isnan(rank_correlation(np.array([]), np.array([])))
    assert not recwarn.list
