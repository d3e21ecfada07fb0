"""The state of a run: who may change it, and what a reader shows."""

import dataclasses
import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from llf_core.runs import FINAL, Status, create_run, read_status, status
from llf_core.runs.process import ProcessId, boot_id, host
from llf_core.runs.status import BrokenRunError, StatusFields, begin_attempt, effective_status, update

GONE = ProcessId(2**22 - 1, 1.0, 1)
STATES = ("created", "starting", "running", "stopping")


def a_status(state="running", trainer=GONE, guard=GONE, **changes):
    values = {"state": state, "host": host(), "boot_id": boot_id(), "heartbeat": time.time(), "step": 3, "total": 9}
    if trainer is not None:
        values |= trainer.json()
    if guard is not None:
        values |= {"supervisor": guard.json()}
    return Status(**(values | changes))


@pytest.fixture
def zombie():
    """A process that has ended and is not reaped."""
    child = subprocess.Popen(["true"])
    identity = ProcessId.of(child.pid)
    while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT):
        pass
    yield identity
    child.wait()


@pytest.mark.parametrize("state", STATES)
def test_lost_where_both_are_gone_and_not_where_one_lives(state):
    own = ProcessId.own()
    assert effective_status(a_status(state)).state == "lost"
    assert effective_status(a_status(state, trainer=own)).state == state
    assert effective_status(a_status(state, guard=own)).state == state
    lost = effective_status(a_status(state))
    assert lost.has_ended
    assert not lost.final
    assert "step 3 of 9" in lost.reason


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_final_state_is_never_lost(state):
    assert effective_status(a_status(state, heartbeat=0.0)).state == state


def test_a_zombie_is_gone(zombie):
    assert effective_status(a_status(trainer=zombie, guard=None)).state == "lost"


def test_a_pid_that_was_given_to_another_process_is_gone():
    own = ProcessId.own()
    for other in (dataclasses.replace(own, ticks=own.ticks - 1), dataclasses.replace(own, ticks=None, started=5.0)):
        assert effective_status(a_status(trainer=other, guard=None)).state == "lost"


def test_a_changed_system_clock_changes_nothing_where_ticks_are_known():
    own = ProcessId.own()
    moved = dataclasses.replace(own, started=own.started - 3600)
    assert moved.alive()
    assert not dataclasses.replace(moved, ticks=None).alive()
    assert dataclasses.replace(own, ticks=None, started=own.started + 0.9).alive()


def test_a_start_time_of_hundreds_of_digits_names_no_process():
    assert ProcessId.read({"pid": 1, "started": 10**400}) is None
    assert ProcessId.read({"pid": 1, "started": 5}) == ProcessId(1, 5.0)


def test_another_boot_of_this_host_is_lost_whatever_the_pids_say():
    own = ProcessId.own()
    assert effective_status(a_status(trainer=own, guard=own, boot_id="another")).state == "lost"


def test_another_host_is_judged_by_its_heartbeat():
    now = 1000.0
    assert effective_status(a_status(host="elsewhere", heartbeat=941.0), now).state == "running"
    assert effective_status(a_status(host="elsewhere", heartbeat=939.0), now).state == "lost"


def test_before_any_process_is_known_half_a_minute_is_given():
    for state in ("created", "starting"):
        assert effective_status(a_status(state, None, None, heartbeat=971.0), 1000.0).state == state
        assert effective_status(a_status(state, None, None, heartbeat=969.0), 1000.0).state == "lost"


def test_update_changes_only_what_it_names(folder):
    before = read_status(folder)
    after = update(
        folder, state="running", step=4, total=9, best={"step": 2, "value": float("nan"), "metric": "eval_loss"}
    )
    assert dataclasses.replace(before, state="running", step=4, total=9, best=after.best) == after
    assert read_status(folder).best == {"step": 2, "value": "NaN", "metric": "eval_loss"}


def test_a_field_that_is_none_is_refused(folder):
    with pytest.raises(TypeError, match="not have the field stepp"):
        update(folder, stepp=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("final", sorted(FINAL))
def test_a_final_state_stays(folder, final):
    ended = update(folder, state=final, reason="because", step=7)
    assert ended.ended == pytest.approx(time.time(), abs=5)
    for change in ({"state": "running"}, {"state": "failed", "reason": "other"}, {"step": 9}, {"heartbeat": 1.0}):
        assert update(folder, **change) == ended
    assert update(folder, exit_code=-9).exit_code == -9
    assert read_status(folder).state == final


def test_only_the_current_attempt_speaks(folder):
    update(folder, state="failed", reason="x")
    begin_attempt(folder, 2)
    assert update(folder, of_attempt=1, state="finished").state == "created"
    assert update(folder, of_attempt=2, state="starting").state == "starting"


def test_begin_attempt_leaves_a_final_state_and_keeps_what_holds(folder):
    update(folder, state="running", step=5, total=9, pid=1, started=1.0, device="cpu", supervisor=GONE.json())
    update(folder, state="failed", reason="x", exit_code=1)
    new = begin_attempt(folder, 2, step=4)
    assert (new.state, new.attempt, new.step, new.total, new.device) == ("created", 2, 4, 9, "cpu")
    assert (new.pid, new.supervisor, new.reason, new.exit_code, new.ended) == (None, None, None, None, None)
    assert effective_status(new).state == "created"


def test_begin_attempt_refuses_a_run_that_goes_and_a_number_that_is_taken(folder):
    with pytest.raises(RuntimeError, match="is created"):
        begin_attempt(folder, 2)
    update(folder, state="running", **ProcessId.own().json())
    with pytest.raises(RuntimeError, match="is running"):
        begin_attempt(folder, 2)
    update(folder, state="stopped")
    with pytest.raises(RuntimeError, match="attempt 3"):
        begin_attempt(folder, 3)
    begin_attempt(folder, 2)
    with pytest.raises(RuntimeError):
        begin_attempt(folder, 2)


def test_a_lost_run_may_begin_again(folder):
    update(folder, state="running", **GONE.json())
    assert begin_attempt(folder, 2).attempt == 2


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format": 1}', '{"format": 1, "state": "dancing"}', '{"format": 1, "state": ["x"]}'],
)
def test_garbage_is_broken_and_says_whose(folder, text):
    folder.status.write_text(text)
    with pytest.raises(BrokenRunError, match=folder.id):
        read_status(folder)
    with pytest.raises(BrokenRunError):
        update(folder, step=1)


def test_a_missing_status_is_broken(folder):
    folder.status.unlink()
    with pytest.raises(BrokenRunError, match=r"no status\.json"):
        read_status(folder)


def test_a_field_of_the_wrong_type_counts_as_unsaid(folder):
    folder.status.write_text(
        '{"format": 1, "state": "running", "step": "many", "heartbeat": null, "pid": true, "supervisor": 3, '
        '"reason": 4, "best": [], "total": 9, "started": "NaN"}'
    )
    read = read_status(folder)
    assert (read.step, read.heartbeat, read.pid, read.supervisor, read.reason, read.best) == (
        0,
        0.0,
        None,
        None,
        None,
        None,
    )
    assert read.total == 9
    assert effective_status(read).state == "lost"


COUNT = """
import sys
from pathlib import Path
from llf_core.runs import RunFolder, status
from llf_core.runs.files import locked
folder = RunFolder(Path(sys.argv[1]))
for _ in range(50):
    with locked(folder.status_lock):
        old = status.read_status(folder)
        status._replace(folder, status.dataclasses.replace(old, step=old.step + 1))
"""


def test_processes_that_change_it_at_once_lose_nothing(folder):
    done = [subprocess.Popen([sys.executable, "-c", COUNT, folder.path]) for _ in range(3)]
    while any(one.poll() is None for one in done):
        read_status(folder)  # a reader never sees a half
    assert [one.returncode for one in done] == [0, 0, 0]
    assert read_status(folder).step == 150


def test_threads_that_change_it_at_once_lose_nothing(folder):
    def work(name):
        for number in range(1, 51):
            update(folder, **{name: number})

    threads = [threading.Thread(target=work, args=(name,)) for name in ("step", "total")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (read_status(folder).step, read_status(folder).total) == (50, 50)


def test_a_lock_that_is_never_freed_is_an_error_with_a_sentence(folder):
    from llf_core.runs.files import locked

    with (
        locked(folder.status_lock),
        pytest.raises(TimeoutError, match="locked by another process"),
        locked(folder.status_lock, seconds=0.05),
    ):
        pytest.fail("two hold one lock")


def test_a_block_runs_where_files_cannot_be_locked(folder, monkeypatch):
    from llf_core.runs.files import locked

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with locked(folder.status_lock):
        pass
    update(folder, step=7)
    assert read_status(folder).step == 7


def test_a_forked_child_does_not_keep_the_lock(folder):
    from llf_core.runs.files import locked

    with locked(folder.status_lock):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with locked(folder.status_lock, seconds=1):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_two_runs_never_share_a_status():
    first, second = create_run("a: 1\n", "x"), create_run("a: 1\n", "x")
    status.update(first, step=5)
    assert read_status(second).step == 0


def test_the_fields_that_can_be_changed_are_those_of_the_status():
    types = {field.name: field.type for field in dataclasses.fields(Status) if field.name != "format"}
    assert {name: hint.__forward_arg__ for name, hint in StatusFields.__annotations__.items()} == types


def test_a_change_that_would_break_the_run_is_refused(folder):
    before = folder.status.read_bytes()
    with pytest.raises(ValueError, match=r"'bogus' is no state of a run\. Expected one of created, failed"):
        update(folder, state="bogus")
    with pytest.raises(TypeError, match="set"):
        update(folder, best={"step": {1}})
    assert folder.status.read_bytes() == before


def test_a_secret_is_neither_stored_nor_returned(folder, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "abcdef123456X")
    assert update(folder, reason="abcdef123456X failed").reason == "*** failed"
    assert read_status(folder).reason == "*** failed"
