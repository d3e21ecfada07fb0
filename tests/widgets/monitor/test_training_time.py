from __future__ import annotations

from llf_widgets.monitor.training_time import training_seconds


def test_pauses_between_attempts_do_not_count():
    moments = [(1, 100.0), (1, 160.0), (2, 1000.0), (2, 1010.0)]
    assert training_seconds(moments, 2, until=1030.0) == 60 + 30
    assert training_seconds(moments, 2, until=None) == 60 + 10
    assert training_seconds([], 1, until=50.0) == 0
