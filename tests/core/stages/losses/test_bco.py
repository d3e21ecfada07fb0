"""The term of `pref_bco_weight`, and the running mean that shifts its rewards."""

import json
from math import exp, log

import pytest
import torch

from llf_core.stages.preference_losses import LOSSES, RunningMean, Terms, bco
from tests.core.stages.losses.made_up import made_pairs, rows

TERMS = Terms(beta=0.37)


@pytest.mark.parametrize("delta", [0.0, 0.6, -1.3])
def test_is_its_formula(delta):
    pairs = made_pairs()
    expected = []
    for chosen, rejected, reference_chosen, reference_rejected, _, _ in rows(pairs):
        good, bad = 0.37 * (chosen - reference_chosen), 0.37 * (rejected - reference_rejected)
        expected.append(log(1 + exp(delta - good)) + log(1 + exp(bad - delta)))
    assert bco(pairs, TERMS, delta).tolist() == pytest.approx(expected, rel=1e-12)
    assert bco(pairs, TERMS, torch.tensor(delta, dtype=torch.float64)).tolist() == pytest.approx(expected, rel=1e-12)


def test_without_a_shift_it_is_bco_pair():
    pairs = made_pairs()
    assert torch.equal(bco(pairs, TERMS, 0.0), LOSSES["bco_pair"](pairs, TERMS))


def test_gradients():
    pairs = made_pairs()
    inputs = [tensor.clone().requires_grad_() for tensor in (pairs.chosen, pairs.rejected)]

    def costs(chosen, rejected):
        return bco(type(pairs)(chosen, rejected, *list(vars(pairs).values())[2:]), TERMS, 0.4)

    assert torch.autograd.gradcheck(costs, inputs)


def test_far_rewards_stay_finite():
    pairs = made_pairs(far=1e5, dtype=torch.float32)
    assert pairs.margin.abs().max() > 1e4
    assert bco(pairs, Terms(beta=1.0), 1e4).isfinite().all()


def test_the_mean_of_all_values_so_far():
    running = RunningMean()
    assert running.mean == 0.0
    running.add(6.0, 3)
    assert running.mean == 2.0
    running.add(torch.tensor(-1.0), torch.tensor(1))
    assert running.mean == 1.25


def test_goes_on_from_a_checkpoint_to_the_last_bit():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, generator=generator).tolist()
    through, first = RunningMean(), RunningMean()
    for value in values[:17]:
        through.add(value, 1)
        first.add(value, 1)
    second = RunningMean()
    second.load(json.loads(json.dumps(first.state())))
    for value in values[17:]:
        through.add(value, 1)
        second.add(value, 1)
    assert second == through
    assert second.mean == pytest.approx(sum(values) / 40, rel=1e-12)


@pytest.mark.parametrize("total", [10**400, -(10**400), "a"])
def test_a_sum_that_is_no_number_is_refused(total):
    running = RunningMean(6.0, 3.0)
    with pytest.raises(ValueError, match="float"):
        running.load({"total": total, "count": 1})
    assert running.mean == 2.0
