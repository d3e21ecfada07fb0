"""Waiting for a run, stopping it and killing it."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest

from llf_core.launch import Run
from llf_core.runs import create_run, read_status, status
from llf_core.runs.process import ProcessId

GONE = {"pid": 2**22 - 1, "started": 1.0, "ticks": 1}


@pytest.fixture
def folder():
    return create_run("model_name_or_path: tiny\nstage: sft\n", "x")


def test_wait_returns_at_the_end_or_at_the_timeout(started):
    run = started("holds")
    assert run.wait(0.05, progress=False).final is False
    (run.folder.path / "go").touch()  # not before that has returned
    assert run.wait(progress=False).state == "finished"


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_wait_looks_once_where_there_is_no_time(folder, seconds):
    assert Run(folder).wait(seconds, progress=False).state == "created"


def test_wait_shows_states_as_lines(started, capsys):
    started("short").wait()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("finished · step 20 of 20 · loss 0.05")
    assert len(lines) <= 5


INTERRUPTED = """
import sys
from llf_core.launch import attach
status = attach(sys.argv[1]).wait(interrupt=sys.argv[2])
print("state", status.state)
"""


@pytest.mark.parametrize("how", ["leave", "raise"])
def test_interrupting_the_wait_leaves_the_run_going(started, until, how):
    run = started("train")
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, run.id, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline().split()[0] in {"starting", "running"}  # its first look
    child.send_signal(signal.SIGINT)
    said, error = child.communicate(timeout=120)
    if how == "leave":
        assert "is still running. Stop it with run.stop()" in said
        assert f"llf runs stop {run.id}" in said
        assert "Traceback" not in error
    else:
        assert "KeyboardInterrupt" in error
    assert until(lambda: run.state == "running")


def test_stop_of_a_run_that_has_ended_sends_nothing(folder):
    status.update(folder, state="finished")
    assert Run(folder).stop() is None
    assert list(folder.control.iterdir()) == []


def test_stop_of_a_lost_run_is_refused(folder):
    status.update(folder, state="running", **GONE)
    with pytest.raises(RuntimeError, match="No process of"):
        Run(folder).stop()


def test_kill_where_the_supervisor_is_dead(started, until):
    run = started("train")
    until(lambda: run.state == "running")
    now = run.status()
    os.kill(now.supervisor_process.pid, signal.SIGKILL)
    until(lambda: not now.supervisor_process.alive())
    final = run.kill()
    assert final.state == "failed"
    assert final.reason.startswith("Killed by the user at step")
    assert not now.trainer.alive()
    assert run.events()[-1]["type"] == "state"
    assert run.kill() == final


def test_kill_where_the_supervisor_hangs(started, until):
    run = started("train")
    until(lambda: run.state == "running")
    now = run.status()
    os.kill(now.supervisor_process.pid, signal.SIGSTOP)
    assert run.kill().state == "failed"
    assert not now.trainer.alive()
    assert not now.supervisor_process.alive()


def test_kill_never_touches_a_process_that_only_has_the_pid(folder):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        ticks = ProcessId.of(other.pid).ticks
        status.update(folder, state="running", pid=other.pid, started=1.0, ticks=ticks - 1)
        assert Run(folder).kill().state == "failed"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_kill_never_touches_pids_of_another_boot(folder):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        status.update(folder, state="running", boot_id="another", **ProcessId.of(other.pid).json())
        assert Run(folder).kill().state == "failed"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_kill_of_a_run_that_ends_by_itself_at_that_moment(folder, monkeypatch):
    """The processes end and the final status is written after they were listed and before the signal is sent."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    seen = iter([True])
    monkeypatch.setattr(ProcessId, "alive", lambda self: next(seen, False))
    monkeypatch.setattr(
        "llf_core.runs.control.killed_reason",
        lambda *_: status.update(folder, state="finished") and "Killed.",
    )
    status.update(folder, state="running", pid=gone.pid, started=1.0)
    before = len(Run(folder).events())
    assert Run(folder).kill().state == "finished"
    assert Run(folder).events()[before:] == []


def test_kill_on_another_machine_asks_there_and_says_where(folder, monkeypatch):
    monkeypatch.setattr("llf_core.runs.control.ELSEWHERE_SECONDS", 0.2)
    status.update(folder, state="running", host="ws-2", heartbeat=time.time(), **GONE)
    with pytest.raises(RuntimeError, match="ws-2"):
        Run(folder).kill()
    (request,) = folder.control.iterdir()
    assert '"kill"' in request.read_text()
    assert read_status(folder).state == "running"
