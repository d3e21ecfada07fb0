from __future__ import annotations

import numpy as np

from llf_widgets.monitor.estimate import seconds_per_step, trained_seconds


def test_speed_is_that_of_the_logged_steps():
    # steps 91 to 95 in 8 s: 2 s a step, whatever came before
    assert seconds_per_step(np.array([91, 93, 95]), np.array([100.0, 104.0, 108.0]), 9.0) == 2.0


def test_one_or_no_logged_step_takes_the_trainers_own_word():
    assert seconds_per_step(np.array([91]), np.array([100.0]), 4.1) == 4.1
    assert seconds_per_step(np.array([], dtype=int), np.array([]), None) is None


def test_old_speeds_are_forgotten():
    steps = np.arange(1, 201)
    times = np.concatenate([np.arange(150) * 10.0, 1500 + np.arange(50) * 1.0])
    assert seconds_per_step(steps, times, None) == 1.0


def test_a_clock_that_was_set_back_counts_nothing():
    steps, times = np.arange(1, 7), np.array([0, 2, 4, 4 - 3600, 6 - 3600, 8 - 3600.0])
    assert seconds_per_step(steps, times, 9.0) == 2.0
    assert seconds_per_step(steps[2:4], times[2:4], 9.0) == 9.0


def test_pauses_between_attempts_do_not_count():
    moments = [(1, 100.0), (1, 160.0), (2, 1000.0), (2, 1010.0)]
    assert trained_seconds(moments, 2, until=1030.0) == 60 + 30
    assert trained_seconds(moments, 2, until=None) == 60 + 10
    assert trained_seconds([], 1, until=50.0) == 0
