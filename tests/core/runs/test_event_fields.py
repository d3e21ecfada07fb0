"""Fields of events that hold what they should not."""

from __future__ import annotations

import json

import pytest

from llf_core.runs import RunReader
from llf_core.runs.control import check_changes, read_changes
from llf_core.runs.jsonl import CHECKS, valid_fields
from llf_core.runs.status import read_status

ODD = [None, True, -1, 10**400, "x", [], [None], {"x": 1}, "NaN", float("inf"), 1e18]


@pytest.fixture
def written(folder):
    """Writes one event into a run's file as it is."""

    def inner(**event):
        folder.events.write_text(json.dumps(event) + "\n")
        return folder

    return inner


@pytest.mark.parametrize("name", CHECKS)
def test_a_field_that_is_odd_is_left_out(name, written):
    for odd in ODD:
        if CHECKS[name](odd):
            continue
        (event,) = RunReader(written(type="data", **{name: odd})).events()
        assert name not in event
        assert event["type"] == "data"


def test_good_fields_stay():
    event = {"type": "x", "time": 1.5e9, "attempt": 0, "step": 3, "bytes": 1, "largest": 0.5, "args": {}, "more": None}
    assert valid_fields(event) == event


def test_a_journal_with_an_odd_change_is_read(written):
    assert read_changes(written(type="steered", step=3, changes={"max_steps": 9}, id="a", cancels=7))[0].step == 3
    assert read_changes(written(type="steered", step=3, changes={"max_steps": 10**400}, id="a")) == []


@pytest.mark.parametrize("steps", [10**400, 1e308, 10**12 + 1, float("nan"), float("inf"), 0, 1.5, True])
def test_a_number_of_steps_that_no_schedule_reckons_with_is_refused(steps):
    with pytest.raises(ValueError, match="max_steps is"):
        check_changes({"max_steps": steps})


@pytest.mark.parametrize(
    ("field", "odd"), [("total", 10**400), ("step", 2**53), ("created", 1e18), ("ended", -1e300), ("heartbeat", 1e18)]
)
def test_a_status_with_an_absurd_number_is_read_without_it(folder, field, odd):
    folder.status.write_text(json.dumps(json.loads(folder.status.read_text()) | {field: odd}))
    assert not getattr(read_status(folder), field)
