"""The intervals of ratios and shares, against values worked out by hand, the bootstrap, and how often they cover."""

import numpy as np
import pytest

from llf_core.metrics.base_metric import LOSS, TOKEN_ACCURACY
from llf_core.metrics.interval import interval, ratio_interval, share_interval


def test_values_worked_out_by_hand():
    # Sums 12 and 6, ratio 2; residuals 1, -1 and 0; error sqrt(2 * 3 / 2) / 6; Student's quantile for 2 is 4.3027.
    found = ratio_interval(np.array([[3.0, 1.0], [3.0, 2.0], [6.0, 3.0], [0.0, 0.0]]))
    assert (found.value, found.count) == (2.0, 3)
    half = 4.3027 * 3**0.5 / 6
    # The expansion of the quantile is too small below 9 degrees of freedom.
    assert found.high - 2 == pytest.approx(half, rel=0.05)
    assert found.high - 2 == pytest.approx(2 - found.low)


def test_few_examples():
    assert ratio_interval(np.empty((0, 2))).value is None
    one = ratio_interval(np.array([[3.0, 2.0]]))
    assert (one.value, one.low, one.high) == (1.5, None, None)
    infinite = ratio_interval(np.array([[np.inf, 2.0], [3.0, 2.0]]))
    assert (infinite.value, infinite.low, infinite.high, infinite.count) == (np.inf, None, None, 2)
    share = share_interval(np.array([[np.inf, 1.0], [1.0, 1.0]]))
    assert (share.value, share.low, share.high) == (np.inf, None, None)


def losses(draw, count):
    """Sums of the losses of examples and their tokens: long examples have lower losses, so that both depend."""
    tokens = draw.integers(3, 200, count).astype(float)
    return np.stack([draw.gamma(4, 0.3 * tokens / (1 + tokens / 400)), tokens], axis=1)


def correct_tokens(draw, count):
    """Correct tokens of examples and all of their tokens: some examples are easy, and the long ones are harder."""
    tokens = draw.integers(1, 80, count)
    ease = draw.beta(4, 2 + tokens / 40)
    return np.stack([draw.binomial(tokens, ease), tokens], axis=1).astype(float)


@pytest.mark.parametrize(
    ("made", "computed", "measure"), [(losses, ratio_interval, LOSS), (correct_tokens, share_interval, TOKEN_ACCURACY)]
)
def test_it_is_that_of_a_bootstrap_by_another_route(made, computed, measure):
    rows = made(np.random.default_rng(3), 400)
    draw = np.random.RandomState(5)
    values = []
    for _ in range(4000):
        chosen = [rows[draw.randint(len(rows))] for _ in range(len(rows))]
        values.append(np.float64(sum(one[0] for one in chosen)) / sum(one[1] for one in chosen))
    low, high = np.percentile(values, [2.5, 97.5])
    found = computed(rows)
    assert found.value == pytest.approx(rows[:, 0].sum() / rows[:, 1].sum(), rel=1e-12)
    assert found.high - found.low == pytest.approx(high - low, rel=0.05)
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.06 * (high - low))
    own = interval(rows, measure)
    assert [found.low, found.high] == pytest.approx([own.low, own.high], abs=0.06 * (high - low))


def test_a_share_stays_between_0_and_1():
    # 4 of 6; residuals -1/3, 2/3 and -1/3; error sqrt(2/3 * 3/2) / 6 = 1/6; half 4.3027 / 6 = 0.717.
    found = share_interval(np.array([[1.0, 2.0], [2.0, 2.0], [1.0, 2.0], [0.0, 0.0]]))
    assert (found.value, found.low, found.high, found.count) == (pytest.approx(2 / 3), 0.0, 1.0, 3)
    # 0.75; residuals 0.5, -0.5, 0.5 and -0.5; error sqrt(1 * 4/3) / 8; Student's quantile for 3 is 3.1824.
    half = 3.1824 * (4 / 3) ** 0.5 / 8
    within = share_interval(np.array([[2.0, 2.0], [1.0, 2.0], [2.0, 2.0], [1.0, 2.0]]))
    assert [within.low, within.high] == pytest.approx([0.75 - half, 1.0])
    assert share_interval(np.empty((0, 2))).value is None
    assert share_interval(np.array([[3.0, 4.0]])).low is None


def test_the_share_of_examples_of_one_unit_is_a_proportion():
    found = share_interval(np.array([[1.0, 1.0]] * 8 + [[0.0, 1.0]] * 2))
    assert [found.value, found.low, found.high] == pytest.approx([0.8, 0.4902, 0.9433], abs=5e-5)  # as R's prop.test


@pytest.mark.parametrize(("made", "computed"), [(losses, ratio_interval), (correct_tokens, share_interval)])
def test_it_covers_the_value_of_all_examples_in_95_of_100(made, computed):
    draw = np.random.default_rng(11)
    every = made(draw, 400_000)
    true = every[:, 0].sum() / every[:, 1].sum()
    held = 0
    for at in range(1000):
        found = computed(every[at * 400 : at * 400 + 100])
        held += found.low <= true <= found.high
    assert 930 <= held <= 970  # three standard deviations of a binomial are 21
