"""Key numbers, with the forecast beside what a run has logged; events of other versions say nothing."""

import numpy as np
import pytest

from llf_widgets.monitor.event_log import log_rows
from llf_widgets.monitor.key_numbers import (
    forecast_line,
    key_numbers,
    memory_note,
    step_row,
    summary_rows,
    training_seconds,
)

EVENT = {"type": "forecast", "step_seconds": 0.4, "low": 0.2, "high": 0.8, "memory": 2_000_000_000, "reason": "…"}
STEPS = np.array([1, 2, 3])
SERIES = {
    "loss": (STEPS, np.array([3.0, 2.0, 1.0])),
    "memory": (STEPS, np.array([1.0e9, 2.2e9, 2.1e9])),
    "step_seconds": (STEPS, np.array([0.9, 0.3, 0.3])),
}


def test_numbers_and_rows_have_the_forecast_beside_them() -> None:
    assert memory_note(SERIES, EVENT) == "forecast 2.00 GB (+10 %)"
    assert step_row(SERIES, EVENT) == (
        "Time per step, median", "0.3 s", "forecast 0.4 s (-25 %), range 0.2 s to 0.8 s",
    )  # fmt: skip
    memory = key_numbers(SERIES, {}, 0, EVENT)[-1]
    assert memory.note == "highest 2.20 GB; forecast 2.00 GB (+10 %)"
    rows = {label: (value, note) for label, value, note in summary_rows(SERIES, {}, 0, [EVENT], 1.0)}
    assert rows["Peak memory"] == ("2.20 GB", "forecast 2.00 GB (+10 %)")
    assert rows["Time per step, median"][0] == "0.3 s"


def test_without_a_forecast_the_numbers_stand_alone() -> None:
    assert memory_note(SERIES, None) == ""
    assert step_row(SERIES, None) == ("Time per step, median", "0.3 s", "")
    assert step_row({}, EVENT) is None
    assert key_numbers(SERIES, {}, 0)[-1].note == "highest 2.20 GB"


def test_the_event_log_has_a_line() -> None:
    assert forecast_line(EVENT) == "forecast: 0.4 s a step (0.2 s to 0.8 s), 2.00 GB"
    assert [row["text"] for row in log_rows([{**EVENT, "time": 1.0}])] == [forecast_line(EVENT)]


@pytest.mark.parametrize("value", [None, "0.4", float("nan"), float("inf"), -1, 0, [], True and "x", 10**400])
def test_what_is_no_number_says_nothing(value: object) -> None:
    broken = {**EVENT, "step_seconds": value, "memory": value}
    assert forecast_line(broken) == ""
    assert memory_note(SERIES, broken) == ""
    assert step_row(SERIES, broken) == ("Time per step, median", "0.3 s", "")


def test_pauses_between_attempts_do_not_count() -> None:
    moments = [(1, 100.0), (1, 160.0), (2, 1000.0), (2, 1010.0)]
    assert training_seconds(moments, 2, until=1030.0) == 60 + 30
    assert training_seconds(moments, 2, until=None) == 60 + 10
    assert training_seconds([], 1, until=50.0) == 0
