from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_widgets.monitor.smoothing import smooth, window


def by_the_book(steps, values, length):
    """The definition, in two loops: weights exp(-distance / length) over all finite earlier values."""
    out = []
    for i, value in enumerate(values):
        if not math.isfinite(value):
            out.append(value)
            continue
        known = [j for j in range(i + 1) if math.isfinite(values[j])]
        weights = [math.exp(-(steps[i] - steps[j]) / length) for j in known]
        out.append(sum(w * values[j] for w, j in zip(weights, known, strict=True)) / sum(weights))
    return out


def test_hand_made_numbers():
    # exp(-1) = 0.367879: (3 + 0.367879 * 1) / 1.367879
    assert smooth(np.array([0, 5]), np.array([1.0, 3.0]), 5.0) == pytest.approx([1.0, 2.462117])


def test_a_constant_stays_itself_from_the_first_point_on():
    assert smooth(np.arange(5000), np.full(5000, 0.7), 20.0) == pytest.approx(np.full(5000, 0.7))


@given(
    st.lists(st.tuples(st.integers(1, 400), st.floats(-1e3, 1e3) | st.just(math.nan)), min_size=1, max_size=60),
    st.floats(0.5, 200),
)
def test_equals_the_definition(points, length):
    steps = np.cumsum([gap for gap, _ in points])
    values = np.array([value for _, value in points])
    expected = by_the_book(steps.tolist(), values.tolist(), length)
    assert smooth(steps, values, length) == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=300), st.data())
def test_what_is_drawn_does_not_change_when_the_run_grows(values, data):
    cut = data.draw(st.integers(1, len(values)))
    steps = np.arange(len(values))
    whole = smooth(steps, np.array(values), 5.0)
    assert smooth(steps[:cut], np.array(values[:cut]), 5.0) == pytest.approx(whole[:cut], rel=1e-12)


def test_infinity_and_nan_stay_and_spoil_nothing():
    out = smooth(np.arange(4), np.array([1.0, math.inf, math.nan, 1.0]), 5.0)
    assert out[0] == 1.0
    assert math.isinf(out[1])
    assert math.isnan(out[2])
    assert out[3] == pytest.approx(1.0)


def test_window_is_known_when_the_run_starts():
    assert window(6000, 1) == 100
    assert window(141, 1) == 5
    assert window(0, 10) == 50
