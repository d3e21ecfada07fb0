from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.runs.curves import automatic_window, label, smooth

VALUES = st.floats(-1e3, 1e3) | st.sampled_from([math.nan, math.inf, -math.inf])
CURVES = st.lists(st.tuples(st.integers(1, 40), VALUES), min_size=1, max_size=120).map(
    lambda points: (np.cumsum([gap for gap, _ in points]), np.array([value for _, value in points]))
)
WINDOWS = st.integers(1, 300) | st.floats(0.5, 200)


def by_the_book(steps, values, window):
    """The definition, in two loops: the mean of the finite values whose step is in (step - window, step]."""
    out = []
    for step, value in zip(steps, values, strict=True):
        inside = [v for s, v in zip(steps, values, strict=True) if step - window < s <= step and math.isfinite(v)]
        out.append(math.fsum(inside) / len(inside) if math.isfinite(value) else value)
    return out


def test_hand_made_numbers():
    steps, values = np.array([1, 2, 3, 7]), np.array([4.0, 2.0, 1.0, 0.5])
    assert smooth(steps, values, 2).tolist() == [4.0, 3.0, 1.5, 0.5]
    assert smooth(steps, values, 5).tolist() == pytest.approx([4.0, 3.0, 7 / 3, 0.75])
    assert smooth(steps, values, 1).tolist() == values.tolist()


@pytest.mark.parametrize("window", [20, 3000])
def test_a_constant_stays_itself_from_the_first_point_on(window):
    assert smooth(np.arange(5000), np.full(5000, 0.7), window) == pytest.approx(np.full(5000, 0.7), rel=1e-13)


@given(CURVES, WINDOWS)
def test_equals_the_definition(curve, window):
    steps, values = curve
    expected = by_the_book(steps.tolist(), values.tolist(), window)
    assert smooth(steps, values, window) == pytest.approx(expected, rel=1e-12, abs=1e-10, nan_ok=True)


@given(CURVES, WINDOWS, st.data())
def test_what_is_drawn_does_not_change_when_the_run_grows(curve, window, data):
    steps, values = curve
    whole = smooth(steps, values, window)
    cut = data.draw(st.integers(1, len(values)))
    part = smooth(steps[:cut], values[:cut], window)
    assert part == pytest.approx(whole[:cut], rel=1e-12, abs=1e-10, nan_ok=True)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=200), st.integers(1, 60))
def test_on_a_falling_curve_it_lies_between_minimum_and_maximum_of_its_window(falls, window):
    values = np.cumsum(falls[::-1])[::-1]
    smoothed = smooth(np.arange(values.size), values, window)
    for place, value in enumerate(smoothed):
        inside = values[max(0, place - window + 1) : place + 1]
        assert inside.min() * (1 - 1e-12) <= value <= inside.max() * (1 + 1e-12)


def test_a_large_value_leaves_no_rounding_error_behind_it():
    values = np.full(4000, 1e-9)
    values[100] = 1e12
    assert smooth(np.arange(4000), values, 50)[160:] == pytest.approx(np.full(3840, 1e-9), rel=1e-12)


def test_infinity_and_nan_stay_and_spoil_nothing():
    out = smooth(np.arange(4), np.array([1.0, math.inf, math.nan, 1.0]), 5)
    assert out[[0, 3]].tolist() == [1.0, 1.0]
    assert math.isinf(out[1])
    assert math.isnan(out[2])
    assert np.isnan(smooth(np.arange(3), np.full(3, math.nan), 5)).all()
    assert smooth(np.empty(0), np.empty(0), 5).size == 0


def test_a_window_that_is_none_is_refused():
    for window in (0, -1, math.nan):
        with pytest.raises(ValueError, match="Expected an integer above 0"):
            smooth(np.arange(3), np.arange(3.0), window)


@pytest.mark.parametrize("window", [1, 10, 17, 1000, 500_000])
def test_a_million_points_take_no_time(window):
    rng = np.random.default_rng(0)
    values, steps = rng.standard_normal(1_000_000), np.arange(1_000_000)
    before = time.thread_time()
    smooth(steps, values, window)
    assert time.thread_time() - before < 1.5


@pytest.mark.parametrize(
    ("total", "gap", "window"),
    [(6000, 1, 200), (141, 1, 10), (0, 10, 100), (1000, 1, 50), (0, 0.0, 10), (1000, 7, 100), (1_000_000, 1, 50_000)],
)
def test_a_window_is_round_and_known_when_the_run_starts(total, gap, window):
    assert automatic_window(total, gap) == window


def test_how_it_is_labelled():
    assert [label(window) for window in (1, 10, 5000)] == [
        "smoothed over 1 step", "smoothed over 10 steps", "smoothed over 5,000 steps",
    ]  # fmt: skip
