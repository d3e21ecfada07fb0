from __future__ import annotations

import time

import pytest

from llf_widgets.monitor import formatting


@pytest.fixture
def noon(monkeypatch):
    """Noon of 24 November 2026 in UTC, as Unix seconds; the reader lives in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield 1795521600
    monkeypatch.undo()
    time.tzset()


def test_a_moment_of_another_day_has_its_date(noon):
    assert formatting.clock(noon) == "24 November, 12:00"
    now = time.time()
    assert formatting.clock(now) == time.strftime("%H:%M", time.localtime(now))


def test_a_span_tells_its_second_day_only_where_it_is_another_one(noon):
    assert formatting.span(noon, noon + 660) == "24 November 2026, 12:00 to 12:11"
    assert formatting.span(noon, noon + 86400) == "24 November 2026, 12:00 to 25 November 2026, 12:00"
