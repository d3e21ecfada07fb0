"""What tokens earn, the running moments and the KL controller, by hand."""

from __future__ import annotations

import statistics

import pytest
import torch

from llf_core.stages.ppo.experience import KLController, RunningMoments, answer_kl, token_rewards

LOG_PROBS = torch.tensor([[-1.0, -2.0, -0.5], [-3.0, 0.0, 0.0]])
REFERENCE = torch.tensor([[-1.5, -1.0, -0.5], [-2.0, 9.0, 9.0]])
MASK = torch.tensor([[True, True, True], [True, False, False]])


def test_tokens_pay_for_the_distance_and_the_last_one_gets_the_score() -> None:
    rewards = token_rewards(LOG_PROBS, REFERENCE, MASK, torch.tensor([4.0, -1.0]), beta=0.2)
    assert rewards[0].tolist() == pytest.approx([-0.1, 0.2, 4.0])
    assert rewards[1].tolist() == pytest.approx([-0.8, 0.0, 0.0])


def test_kl_of_an_answer_is_the_sum_over_its_tokens() -> None:
    assert answer_kl(LOG_PROBS, REFERENCE, MASK).tolist() == [-0.5, -1.0]


def test_running_moments_are_those_of_all_scores() -> None:
    batches = [[1.0, 2.0, 7.0], [4.0], [-3.0, 0.5]]
    moments = RunningMoments()
    for batch in batches:
        moments.update(torch.tensor(batch))
    every = [score for batch in batches for score in batch]
    assert moments.mean == pytest.approx(statistics.fmean(every), rel=1e-12)
    assert moments.deviation == pytest.approx(statistics.stdev(every), rel=1e-12)
    expected = (2.0 - statistics.fmean(every)) / statistics.stdev(every)
    assert moments.normalized(torch.tensor([2.0])).tolist() == pytest.approx([expected])


def test_scores_that_are_all_the_same_become_0() -> None:
    moments = RunningMoments()
    moments.update(torch.tensor([3.0]))
    assert moments.normalized(torch.tensor([3.0])).tolist() == [0.0]
    moments.update(torch.tensor([3.0, 3.0]))
    assert moments.normalized(torch.tensor([3.0, 4.0])).tolist() == [0.0, 1.0]


def test_controller_follows_the_target() -> None:
    controller = KLController(0.2, target=6.0)
    controller.update(6.6, answers=500)  # error 0.1, times 500 / 10,000
    assert controller.coefficient == pytest.approx(0.2 * 1.005, rel=1e-12)
    controller.update(60.0, answers=1000)  # error 9, clipped to 0.2
    assert controller.coefficient == pytest.approx(0.2 * 1.005 * 1.02, rel=1e-12)
    controller.update(0.0, answers=1000)  # error -1, clipped to -0.2
    assert controller.coefficient == pytest.approx(0.2 * 1.005 * 1.02 * 0.98, rel=1e-12)


def test_controller_without_a_target_stays() -> None:
    controller = KLController(0.2, target=None)
    controller.update(60.0, answers=1000)
    assert controller.coefficient == 0.2
