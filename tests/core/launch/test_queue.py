"""Runs that wait for their turn: real supervisors over a small program, and sweeps."""

import json
import time

import pytest

from llf_core.config import ConfigError
from llf_core.launch import Run, sweep
from llf_core.launch import queue as queues
from llf_core.launch.detach import start_supervisor
from llf_core.launch.queue import Machine, Turn, enter
from llf_core.runs import create_run, list_runs, send_request, status
from llf_widgets.monitor.watch import waits_for


@pytest.fixture
def queued(command, monkeypatch):
    """`queued(mode) -> Run`: the program under a supervisor that waits for its turn."""

    def start(mode, name="waits"):
        folder = create_run("model_name_or_path: tiny\nstage: sft\n", name)
        enter(folder)
        start_supervisor(folder, None, command(folder, mode))
        return Run(folder)

    return start


def events(run, kind):
    return [event for event in run.events() if event["type"] == kind]


def test_runs_go_one_after_the_other_in_the_order_in_which_they_came(started, queued, until):
    first = started("train")
    until(lambda: first.state == "running")
    second, third = queued("short", "second"), queued("short", "third")
    assert (second.state, third.state) == ("created", "created")
    assert [row.name for row in Turn(third.folder).ahead()] == ["supervised", "second"]
    assert Turn(second.folder).behind() == 1
    for run in (first, second, third):
        assert run.wait(60, progress=False).state == "finished"
    ends = [
        next(event["time"] for event in events(run, "state") if event["state"] == "finished") for run in (first, second)
    ]
    begins = [
        next(event["time"] for event in events(run, "state") if event["state"] == "starting") for run in (second, third)
    ]
    assert ends[0] <= begins[0] <= ends[1] <= begins[1]
    assert not second.folder.queue.exists()
    assert events(third, "queued")[0]["ahead"] == [first.id, second.id]


def test_an_empty_machine_is_no_wait(queued):
    run = queued("short")
    assert run.wait(30, progress=False).state == "finished"


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_run_is_taken_out_of_the_queue_and_can_be_started_later(started, queued, until, how, command):
    busy = started("long")
    until(lambda: busy.state == "running")
    run = queued("short")
    request = send_request(run.folder, how, by="test")
    final = run.wait(30, progress=False)
    assert (final.state, final.step) == ("stopped", 0)
    assert final.reason == "Taken out of the queue before it began. Resume starts it."
    until(lambda: events(run, "answer"))
    assert [(one["id"], one["ok"]) for one in events(run, "answer")] == [(request, True)]
    assert not run.folder.queue.exists()
    until(lambda: not run.status().guard.alive())
    run.resume(command=command(run.folder, "short"))
    assert run.wait(30, progress=False).state == "finished"
    busy.kill()


def test_a_run_whose_supervisor_is_gone_holds_nobody_up(started, queued, until):
    busy = started("long")
    until(lambda: busy.state == "running")
    lost, run = queued("short", "lost"), queued("short", "behind")
    import psutil

    psutil.Process(lost.status().guard.pid).kill()
    until(lambda: lost.state == "lost")
    assert [row.name for row in Turn(run.folder).ahead()] == ["supervised"]
    busy.kill()
    assert run.wait(30, progress=False).state == "finished"


def test_of_two_that_look_at_once_one_begins():
    first, second = (create_run("stage: sft\n", name) for name in ("one", "two"))
    for folder in (first, second):
        enter(folder)
        status.update(folder, supervisor=status_of_this_process(), heartbeat=time.time())
    assert Turn(second).take(1) is False  # the other has waited longer
    assert Turn(first).take(1) is True
    status.update(first, state="starting", supervisor=status_of_this_process(), heartbeat=time.time())
    assert Turn(second).take(1) is False


def test_an_attempt_that_was_given_up_takes_no_turn():
    folder = create_run("stage: sft\n", "twice")
    enter(folder)
    status.update(folder, state="failed", reason="It was.")
    status.begin_attempt(folder, 2)
    assert Turn(folder).take(1) is False
    assert Turn(folder).take(2) is True


def test_a_run_that_was_just_made_goes_first():
    """It has no supervisor yet, and is no part of the queue."""
    new = create_run("stage: sft\n", "new")
    folder = create_run("stage: sft\n", "waits")
    enter(folder)
    assert [one.id for one in Turn(folder).ahead()] == [new.id]
    assert Turn(folder).rest() == 2.0


def test_what_is_waited_for_is_a_sentence():
    running, other, mine = (create_run("stage: sft\n", name) for name in ("goes", "other", "mine"))
    status.update(
        running, state="running", supervisor=status_of_this_process(), heartbeat=time.time(), step=40, total=100,
        step_seconds=3.0,
    )  # fmt: skip
    for folder in (other, mine):
        enter(folder)
        status.update(folder, supervisor=status_of_this_process(), heartbeat=time.time())
    assert waits_for(Turn(mine)) == "Waits for goes (step 40 of 100), about 3 min. Number 2 of 2 in the queue."
    assert waits_for(Turn(other)).endswith("Number 1 of 2 in the queue.")
    assert [one.id for one in Machine(mine.home).ahead()] == [running.id, other.id, mine.id]


def status_of_this_process():
    from llf_core.runs.process import ProcessId

    return ProcessId.own().json()


# -- sweeps ---------------------------------------------------------------------------------------------
@pytest.fixture
def config(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": "Hi", "output": "Yo"}]))
    return {"model_name_or_path": "smollm2-135m-instruct", "dataset": str(tmp_path / "rows.json"), "run_name": "tune"}


@pytest.fixture
def no_start(monkeypatch):
    """Folders are made; nothing is started."""
    monkeypatch.setattr("llf_core.launch.start.start_supervisor", lambda *_: None)


def test_a_sweep_is_a_run_for_each_combination(config, no_start):
    runs = sweep(config, {"learning_rate": [1e-4, 3e-4], "lora_rank": [8, 32]}, name="tune")
    assert [run.folder.config.exists() and run.folder.queue.exists() for run in runs] == [True] * 4
    names = [row.name for row in list_runs(sort="oldest").rows]
    assert sorted(names) == sorted(
        f"tune learning_rate={rate} lora_rank={rank}" for rate in ("1e-4", "3e-4") for rank in (8, 32)
    )
    asked = [run.folder.config.read_text() for run in runs]
    assert ["learning_rate: 3.0e-4" in text for text in asked] == [False, False, True, True]
    assert ["lora_rank: 32" in text for text in asked] == [False, True, False, True]


def test_rows_from_a_cell_can_be_swept_over(no_start):
    rows = [{"instruction": "Hi", "output": "Yo"}]
    runs = sweep({"model_name_or_path": "smollm2-135m-instruct"}, {"lora_rank": [4, 8]}, rows=rows)
    assert all((run.folder.data / "rows.parquet").exists() or list(run.folder.data.iterdir()) for run in runs)


def test_where_one_combination_is_wrong_nothing_starts(config, no_start):
    with pytest.raises(ConfigError, match="lora_rank"):
        sweep(config, {"lora_rank": [8, "many"]})
    assert list_runs().total == 0


@pytest.mark.parametrize("values", [{}, {"lora_rank": []}, {"template": "llama3"}, {"lora_rank": list(range(1, 102))}])
def test_what_is_no_sweep_is_refused(config, no_start, values):
    with pytest.raises(ValueError, match="Expected"):
        sweep(config, values)
    assert queues.MOST_RUNS == 100


def test_no_value_is_a_value_of_a_sweep(config, no_start):
    runs = sweep(config, {"quantization_bit": [None, 4], "enable_thinking": [None]})
    texts = [run.folder.config.read_text() for run in runs]
    assert ["quantization_bit: 4" in text for text in texts] == [False, True]
    assert ["enable_thinking: null" in text for text in texts] == [True, True]


def test_what_was_started_before_an_error_is_told(config, monkeypatch):
    left = iter(range(2))

    def full(*_):
        if next(left, None) is None:
            raise OSError("No space left on device.")

    monkeypatch.setattr("llf_core.launch.start.start_supervisor", full)
    said = r"^No space left on device\. 2 of the 3 runs were started before and stay in the queue\.$"
    with pytest.raises(RuntimeError, match=said):
        sweep(config, {"lora_rank": [2, 4, 8]})
