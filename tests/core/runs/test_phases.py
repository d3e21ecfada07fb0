"""Work that takes its time says how far it is, no oftener than every two seconds."""

from __future__ import annotations

from llf_core.runs import RunReader, RunWriter, writer
from llf_core.runs.writer import ProgressEvents


def told(folder):
    return [(event["rows"], event.get("of")) for event in RunReader(folder).events() if event["type"] == "progress"]


def test_quick_work_says_nothing(folder):
    work = ProgressEvents(RunWriter(folder, 1), "rollout", 3)
    assert [work(done) for done in (1, 2, 3)] == [False, False, False]
    assert told(folder) == []


def test_long_work_speaks_every_two_seconds_and_at_its_end(folder, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(writer.time, "monotonic", lambda: clock[0])
    work = ProgressEvents(RunWriter(folder, 1), "rollout", 5, step=7)
    said = []
    for done, passed in ((1, 1.9), (1, 0.2), (2, 1.0), (3, 1.1), (5, 0.1), (5, 0.1)):
        clock[0] += passed
        said.append(work(done))
    assert said == [False, True, False, True, True, False]
    assert told(folder) == [(1, 5), (3, 5), (5, 5)]
    assert RunReader(folder).events()[-1]["step"] == 7


def test_without_a_run_the_asker_alone_is_told(monkeypatch):
    monkeypatch.setattr(writer, "INTERVAL_SECONDS", 0.0)
    assert ProgressEvents(None, "data")(1, dataset="x")
