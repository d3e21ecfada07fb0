from __future__ import annotations

import math

import pytest

from llf_widgets.monitor import words


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (12, "0:12"), (430, "7:10"), (7391, "2:03:11"), (273_600, "3 d 4 h")]
)
def test_duration(seconds, text):
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.2836, "1.28"), (0.69, "0.690"), (42.1, "42.1"), (1071.4, "1,071"), (0.00042, "4.2e-4"), (0, "0"),
     (math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "-infinity"), (-2.5, "-2.50")],
)  # fmt: skip
def test_number(value, text):
    assert words.number(value) == text


def test_small_and_size():
    assert [words.small(value) for value in (3.1e-5, 1e-4, 0)] == ["3.1e-5", "1.0e-4", "0"]
    assert words.size(1.61e9) == ("1.61", "GB")
    assert words.size(512) == ("512", "bytes")
