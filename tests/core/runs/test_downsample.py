"""Thinned curves: never more points than asked, and nothing that one would have seen is gone."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.runs import decimate

VALUES = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=400)


@given(VALUES, st.integers(8, 64))
def test_never_more_points_and_only_real_ones(values, n):
    x, y = decimate(range(len(values)), values, n)
    assert len(x) == len(y) <= max(n, 0)
    assert np.all(np.diff(x) > 0)
    assert np.array_equal(y, np.asarray(values, float)[x] if len(x) else [], equal_nan=True)


@given(VALUES, st.integers(8, 64))
def test_ends_lowest_and_highest_stay(values, n):
    x, y = decimate(range(len(values)), values, n)
    finite = [value for value in values if math.isfinite(value)]
    if values:
        assert (x[0], x[-1]) == (0, len(values) - 1)
    if finite:
        kept = y[np.isfinite(y)]
        assert (kept.min(), kept.max()) == (min(finite), max(finite))


@given(st.integers(100, 3000), st.sets(st.integers(0, 2999), max_size=12), st.integers(48, 100))
def test_every_gap_stays_where_it_was(count, gaps, n):
    y = np.sin(np.arange(count) / 9)
    gaps = sorted(gap for gap in gaps if gap < count)
    y[gaps] = np.nan
    x, kept = decimate(np.arange(count), y, n)
    runs = [gap for gap in gaps if gap - 1 not in gaps or gap + 1 not in gaps]
    assert set(x[np.isnan(kept)].tolist()) == set(runs if count > n else gaps)


@given(st.integers(50, 2000), st.integers(8, 40), st.data())
def test_more_gaps_than_fit_leave_one_in_each_stretch(count, n, data):
    y = np.ones(count)
    y[np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1)))] = np.nan
    x, kept = decimate(np.arange(count), y, n)
    marks = x[np.isnan(kept)]
    stretch = count / (n // 2) + 1
    for gap in np.flatnonzero(np.isnan(y)):
        inside = (marks[:-1] < gap) & (gap < marks[1:]) if len(marks) > 1 else np.array([])
        # Between the first and the last value of one run that was kept whole, or near a mark.
        between_ends = inside.any() and np.isnan(y[marks[:-1][inside][0] : marks[1:][inside][0] + 1]).all()
        assert between_ends or np.abs(marks - gap).min() <= stretch


def test_a_million_points_become_two_thousand_with_the_spike_and_the_gap():
    y = np.zeros(1_000_000)
    y[123_456], y[654_321], y[777_777] = 5.0, -5.0, np.nan
    x, kept = decimate(np.arange(1_000_000), y)
    assert len(x) <= 2000
    assert kept[x == 123_456] == 5.0
    assert kept[x == 654_321] == -5.0
    assert np.isnan(kept[x == 777_777])


def test_short_curves_are_copied_whole():
    y = np.array([1.0, np.nan, 3.0])
    x, kept = decimate([1, 2, 3], y)
    assert x.tolist() == [1, 2, 3]
    kept[0] = 9
    assert y[0] == 1.0


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="equal length"):
        decimate([1, 2], [1.0])
    with pytest.raises(ValueError, match="at least 8"):
        decimate([1], [1.0], 4)
