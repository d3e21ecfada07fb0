"""Marks of a logarithmic axis: few, round, inside, in any range."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_widgets.compare.plotly_figure import FEWEST, MOST, log_ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-4, 4.0, [1e-4, 1e-3, 0.01, 0.1, 1.0]),
        (1e-4, 4e-3, [1e-4, 3e-4, 1e-3, 3e-3]),
        (0.5, 4.0, [0.5, 1.0, 2.0]),
        (1.3, 1.52, [1.3, 1.35, 1.4, 1.45, 1.5]),
        (3.419289662, 3.4192896673, [3.41929]),
        (1e-12, 10.0, [1e-12, 1e-9, 1e-6, 1e-3, 1.0]),
    ],
)
def test_by_hand(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)


@given(st.floats(1e-9, 1e6), st.floats(1.001, 1e9))
def test_any_range_has_some_marks_and_not_too_many(low, factor):
    high = low * factor
    found = log_ticks(low, high)
    assert FEWEST - 1 <= len(found) <= 2 * MOST
    assert found == sorted(set(found))
    assert all(low * (1 - 1e-5) <= one <= high * (1 + 1e-5) for one in found)
    assert all(math.isfinite(one) and one > 0 for one in found)
