"""The progress line."""

import sys
import time

import pytest

from llf_core.launch.run import ProgressLine
from llf_core.runs import RunReader, RunWriter, Status, create_run


@pytest.fixture
def watch():
    folder = create_run("a: 1\n", "x")
    RunWriter(folder, 1).metric(1, {"loss": 1.25})
    return ProgressLine(RunReader(folder))


def test_states_are_printed_and_steps_now_and_then(watch, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch.show(Status(state="starting"))
    watch.show(Status(state="starting"))
    for step in range(1, 101):
        now[0] += 3
        watch.show(Status(state="running", step=step, total=100, step_seconds=3.0))
    watch.show(Status(state="finished", step=100, total=100))
    watch.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "starting · loss 1.250"
    assert lines[1] == "running · step 1 of 100 · loss 1.250 · 4:57 left"
    assert lines[-1] == "finished · step 100 of 100 · loss 1.250"
    assert len(lines) == 3 + 19  # every 5 steps of 3 s: the share counts, not the seconds


def test_a_slow_run_is_not_more_than_one_line_in_ten_seconds(watch, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for step in range(1, 11):
        now[0] += 1
        watch.show(Status(state="running", step=step, total=10))
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_terminal_gets_one_line(watch, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    bar = ProgressLine(watch._reader)
    bar.show(Status(state="running", step=5, total=10, step_seconds=1.0))
    bar.close()
    assert "running · step 5 of 10 · loss 1.250 · 0:05 left" in capsys.readouterr().out
