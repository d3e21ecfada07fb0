"""Labels at the ends of lines."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from llf_widgets.plotting.plotly_layout import Axes, LineEnd, end_labels, label_shifts, last_point, value_range


@pytest.mark.parametrize(
    ("heights", "moved"),
    [
        ([], []),
        ([10], [0]),
        ([0, 40], [0, 0]),
        ([0, 0], [-5, 5]),
        ([20, 0, 4], [0, -3, 3]),
        ([0, 1, 2], [-9, 0, 9]),
    ],
)
def test_labels_that_would_touch_are_moved_apart(heights, moved):
    found = label_shifts([float(one) for one in heights], 10)
    assert found == moved
    after = sorted(one + shift for one, shift in zip(heights, found, strict=True))
    assert all(high - low >= 10 for low, high in pairwise(after))


def test_the_label_of_a_line_stands_at_its_last_finite_point():
    steps = np.array([1, 2, 3])
    assert last_point(steps, np.array([1.0, 2.0, math.nan])) == (2.0, 2.0)
    assert last_point(steps, np.full(3, math.inf)) is None
    assert last_point(np.empty(0), np.empty(0)) is None


def test_the_range_of_lines_ignores_what_an_axis_cannot_show():
    lines = [np.array([-1.0, 0.5, math.nan]), np.array([math.inf, 2.0])]
    assert value_range(lines) == (-1.0, 2.0)
    assert value_range(lines, positive=True) == (0.5, 2.0)
    assert value_range([]) == (0.0, 1.0)
    assert value_range([np.array([-1.0])], positive=True) == (0.1, 1.0)
    low, high = value_range([np.array([3.0, 3.0])])
    assert low == 3.0 < high


def test_labels_are_text_on_the_axes_of_their_chart():
    ends = [LineEnd(5.0, 1.0, "<b>a</b> 1", "rgb(0, 0, 0)"), LineEnd(5.0, 1.0, "b 1", "rgb(1, 1, 1)")]
    first, second = end_labels(ends, Axes.numbered(3), 100, (0.0, 2.0), apart=12, size=11)
    assert first["text"] == "&lt;b&gt;a&lt;/b&gt; 1"
    assert (first["xref"], first["yref"], first["x"], first["y"]) == ("x3", "y3", 5.0, 1.0)
    assert second["yshift"] - first["yshift"] == 12


def test_axes_are_named_as_plotly_names_them():
    first, marks = Axes.numbered(1), Axes(1, 7)
    assert (first.trace, first.layout) == ({"xaxis": "x", "yaxis": "y"}, ("xaxis", "yaxis"))
    assert (marks.reference, marks.layout) == ({"xref": "x", "yref": "y7"}, ("xaxis", "yaxis7"))


@pytest.mark.parametrize("value", [0.0, 1.0, 32768.0, -1e12, 5e300])
@pytest.mark.parametrize("positive", [False, True])
def test_a_constant_line_has_a_range_for_its_label(value, positive):
    low, high = value_range([np.full(3, value)], positive=positive)
    assert low < high < math.inf
