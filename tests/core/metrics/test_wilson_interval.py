"""The band is the set of shares that would not have made the count a surprise."""

import pytest

from llf_core.metrics.wilson_interval import SIGMA, wilson_interval


def test_known_values():
    assert wilson_interval(8, 10) == pytest.approx(
        (0.4902, 0.9433), abs=5e-5
    )  # as R's prop.test(8, 10, correct = FALSE)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=5e-5)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=5e-5)


@pytest.mark.parametrize(("successes", "count"), [(1, 3), (7, 10), (50, 100), (2.5, 5)])
def test_at_its_ends_the_count_is_so_many_deviations_off(successes, count):
    for share in wilson_interval(successes, count):
        deviation = (share * (1 - share) / count) ** 0.5
        assert abs(successes / count - share) == pytest.approx(SIGMA * deviation)
