"""Runs that wait for their turn: real supervisors over a small program."""

import time

import pytest

from llf_core.launch import Run
from llf_core.launch.local_process import start_supervisor
from llf_core.launch.queue import MachineLoad, QueuePosition, enqueue
from llf_core.runs import create_run, send_request, status
from llf_widgets.monitor.run_tracker import queue_text


@pytest.fixture
def queued(command, monkeypatch):
    """`queued(mode) -> Run`: the program under a supervisor that waits for its turn."""

    def start(mode, name="waits"):
        folder = create_run("model_name_or_path: tiny\nstage: sft\n", name)
        enqueue(folder)
        start_supervisor(folder, None, command(folder, mode))
        return Run(folder)

    return start


def events(run, kind):
    return [event for event in run.events() if event["type"] == kind]


def test_runs_go_one_after_the_other_in_the_order_in_which_they_came(started, queued, until):
    first = started("train")
    until(lambda: first.state == "running")
    second, third = queued("short", "second"), queued("short", "third")
    assert (second.state, third.state) == ("queued", "queued")
    assert [row.name for row in QueuePosition(third.folder).ahead()] == ["supervised", "second"]
    assert QueuePosition(second.folder).behind() == 1
    until(lambda: events(third, "queued"))  # it has counted who is before it
    first.stop()
    states = [run.wait(120, progress=False).state for run in (first, second, third)]
    assert states == ["stopped", "finished", "finished"]
    # Of the status, by which the others see the end: the event of it comes a moment later.
    ends = [round(run.status().ended, 3) for run in (first, second)]
    begins = [
        next(event["time"] for event in events(run, "state") if event["state"] == "starting") for run in (second, third)
    ]
    assert ends[0] <= begins[0] <= ends[1] <= begins[1]
    assert not second.folder.queue.exists()
    assert events(third, "queued")[0]["ahead"] == [first.id, second.id]


def test_an_empty_machine_is_no_wait(queued):
    run = queued("short")
    assert run.wait(120, progress=False).state == "finished"


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_run_is_taken_out_of_the_queue_and_can_be_started_later(started, queued, until, how, command):
    busy = started("train")
    until(lambda: busy.state == "running")
    run = queued("short")
    request = send_request(run.folder, how, by="test")
    final = run.wait(120, progress=False)
    assert (final.state, final.step) == ("stopped", 0)
    assert final.reason == "Removed from the queue before it started. Resume starts it."
    until(lambda: events(run, "answer"))
    assert [(one["id"], one["ok"]) for one in events(run, "answer")] == [(request, True)]
    assert not run.folder.queue.exists()
    until(lambda: not run.status().supervisor_process.alive())
    run.resume(command=command(run.folder, "short"))
    assert run.wait(120, progress=False).state == "finished"
    busy.kill()


def test_a_run_whose_supervisor_is_gone_holds_nobody_up(started, queued, until):
    busy = started("train")
    until(lambda: busy.state == "running")
    lost, run = queued("short", "lost"), queued("short", "behind")
    import psutil

    psutil.Process(lost.status().supervisor_process.pid).kill()
    until(lambda: lost.state == "lost")
    assert [row.name for row in QueuePosition(run.folder).ahead()] == ["supervised"]
    busy.kill()
    assert run.wait(120, progress=False).state == "finished"


def test_of_two_that_look_at_once_one_begins():
    first, second = (create_run("stage: sft\n", name) for name in ("one", "two"))
    for folder in (first, second):
        enqueue(folder)
        status.update(folder, supervisor=status_of_this_process(), heartbeat=time.time())
    assert QueuePosition(second).try_start(1) is False  # the other has waited longer
    assert QueuePosition(first).try_start(1) is True
    status.update(first, state="starting", supervisor=status_of_this_process(), heartbeat=time.time())
    assert QueuePosition(second).try_start(1) is False


def test_an_attempt_that_was_given_up_takes_no_turn():
    folder = create_run("stage: sft\n", "twice")
    enqueue(folder)
    status.update(folder, state="failed", reason="It was.")
    status.begin_attempt(folder, 2)
    assert QueuePosition(folder).try_start(1) is False
    assert QueuePosition(folder).try_start(2) is True


def test_a_run_that_was_just_made_goes_first():
    """It has no supervisor yet, and is no part of the queue."""
    new = create_run("stage: sft\n", "new")
    folder = create_run("stage: sft\n", "waits")
    enqueue(folder)
    assert [one.id for one in QueuePosition(folder).ahead()] == [new.id]
    assert QueuePosition(folder).poll_seconds() == 2.0


def test_what_is_waited_for_is_a_sentence():
    running, other, mine = (create_run("stage: sft\n", name) for name in ("goes", "other", "mine"))
    status.update(
        running, state="running", supervisor=status_of_this_process(), heartbeat=time.time(), step=40, total=100,
        step_seconds=3.0,
    )  # fmt: skip
    for folder in (other, mine):
        enqueue(folder)
        status.update(folder, supervisor=status_of_this_process(), heartbeat=time.time())
    assert queue_text(QueuePosition(mine)) == (
        "Waiting for goes (step 40 of 100), about 3 min. Position 2 of 2 in the queue."
    )
    assert queue_text(QueuePosition(other)).endswith("Position 1 of 2 in the queue.")
    assert [one.id for one in MachineLoad(mine.home).ahead()] == [running.id, other.id, mine.id]


def status_of_this_process():
    from llf_core.runs.process import ProcessId

    return ProcessId.own().json()
