"""The writer in a trainer: heartbeat, last words, full disks, and a run that went on without it."""

import json
import resource
import subprocess
import sys
import threading
import time

import psutil
import pytest

from llf_core.runs import Inbox, RunReader, RunWriter, jsonl, read_status, send_request, status
from llf_core.runs.files import locked
from llf_core.runs.process import ProcessId
from llf_core.untrusted import create_file


def until(what, seconds=120):
    """Waits for a fact."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def test_records_are_the_contracts_lines(folder):
    writer = RunWriter(folder, 3)
    writer.metric(12, {"loss": 1.5, "grad_norm": float("inf")})
    writer.event("evaluation", step=12, values={"eval_loss": 2.0})
    writer.sample(step=12, kind="answer", prompt="p", text="t", of="tuned")
    record = json.loads(folder.metrics.read_text())
    assert record.pop("time") == pytest.approx(time.time(), abs=5)
    assert record == {"step": 12, "attempt": 3, "values": {"loss": 1.5, "grad_norm": "Infinity"}}
    event = json.loads(folder.events.read_text().splitlines()[-1])
    assert event.pop("time") == pytest.approx(time.time(), abs=5)
    assert event == {"v": 1, "attempt": 3, "type": "evaluation", "step": 12, "values": {"eval_loss": 2.0}}
    sample = json.loads(folder.samples.read_text())
    assert (sample["step"], sample["of"], sample["attempt"]) == (12, "tuned", 3)


def test_a_sample_changes_no_status(folder):
    status.update(folder, state="finished")
    before = folder.status.read_bytes()
    RunWriter(folder, 1).sample(step=1, text="x")
    assert folder.status.read_bytes() == before


def test_steps_wait_for_the_heartbeat_and_states_do_not(folder):
    writer = RunWriter(folder, 1)
    writer.start_heartbeat(0.05)
    own = ProcessId.own()
    first = read_status(folder)
    assert (first.pid, first.started, first.ticks) == (own.pid, own.started, own.ticks)
    writer.status(state="running", total=9)
    assert (read_status(folder).state, read_status(folder).total) == ("running", 9)
    writer.status(step=4)
    until(lambda: read_status(folder).step == 4)
    beat = read_status(folder).heartbeat
    until(lambda: read_status(folder).heartbeat > beat)
    writer.status(step=5)
    writer.close("finished", "done")
    last = read_status(folder)
    assert (last.state, last.step, last.reason) == ("finished", 5, "done")
    time.sleep(0.15)
    assert read_status(folder) == last


def test_close_says_the_state_once_and_only_a_final_one(folder):
    writer = RunWriter(folder, 1)
    with pytest.raises(ValueError, match="running"):
        writer.close("running")
    writer.close("stopped", "because")
    writer.close("failed", "another")
    assert read_status(folder).state == "stopped"
    states = [event for event in RunReader(folder).events() if event["type"] == "state"]
    assert [(event["state"], event["reason"]) for event in states] == [("stopped", "because")]


def test_close_closes_the_files_also_without_a_status(folder):
    writer = RunWriter(folder, 1)
    writer.metric(1, {"loss": 1.0})
    folder.status.unlink()
    with pytest.raises(status.BrokenRunError):
        writer.close("finished")
    assert str(folder.metrics) not in {one.path for one in psutil.Process().open_files()}


def test_an_attempt_that_was_given_up_says_nothing_more(folder):
    status.update(folder, state="failed", reason="x")
    old = RunWriter(folder, 1)
    status.begin_attempt(folder, 2)
    with pytest.raises(RuntimeError, match="Attempt 1 ends"):
        old.start_heartbeat()
    old.close("finished")
    assert read_status(folder).state == "created"
    assert "state" not in {event["type"] for event in RunReader(folder).events()}


GIVEN_UP = """
import sys, time
from pathlib import Path
from llf_core.runs import RunFolder, RunWriter
writer = RunWriter(RunFolder(Path(sys.argv[1])), 1)
writer.start_heartbeat(0.05)
print("going", flush=True)
time.sleep(60)
"""


def test_a_trainer_whose_run_was_taken_up_elsewhere_ends(folder):
    command = [sys.executable, "-c", GIVEN_UP, folder.path]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert child.stdout.readline() == "going\n"
    # Another machine saw no heartbeat for a minute, as after a suspend.
    status.update(folder, host="elsewhere", heartbeat=1.0)
    try:
        status.begin_attempt(folder, 2)
    except RuntimeError:  # a heartbeat came between; none may come between reading and writing now
        with locked(folder.status_lock):
            status._replace(folder, status.dataclasses.replace(read_status(folder), attempt=2))
    assert child.wait(120) == 1
    assert "was replaced" in child.stdout.read()


LIMITED = """
import resource, sys
from pathlib import Path
from llf_core.runs import RunFolder, RunWriter
folder = RunFolder(Path(sys.argv[1]))
writer = RunWriter(folder, 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
written = 0
try:
    for step in range(1000):
        writer.metric(step, {"loss": 1.0})
        written += 1
except OSError as error:
    print(written, error.errno, error.strerror, error.filename)
    writer.event("error", message=str(error), what_to_do="Free some space.")
    writer.close("failed", f"The disk is full ({error.strerror}).")
"""


def test_a_limit_on_file_sizes_is_a_clear_error_and_loses_nothing(folder, python):
    done = python(LIMITED, folder.path)
    assert done.returncode == 0, done.stderr
    written, number, words = done.stdout.split(maxsplit=2)
    assert (number, words) == ("27", f"File too large {folder.metrics}\n")
    assert len(RunReader(folder).metrics()) == int(written)
    assert (read_status(folder).state, read_status(folder).reason) == ("failed", "The disk is full (File too large).")
    # A later process, without the limit, goes on behind the cut line.
    RunWriter(folder, 1).metric(5000, {"loss": 2.0})
    columns = RunReader(folder).metrics()
    assert (len(columns), columns.last("loss")) == (int(written) + 1, 2.0)


FULL = """
import json, os, sys
from pathlib import Path
from llf_core.runs import Checkpoints, create_run, RunWriter, read_status
folder = create_run("a: 1\\n", "full", sys.argv[1])
writer = RunWriter(folder, 1)
writer.status(state="running", step=1)
old = Checkpoints(folder).path(1)
old.mkdir(parents=True)
(old / "model").write_bytes(b"x" * 50_000)
Checkpoints(folder).finish(1)
new = Checkpoints(folder).path(2)
new.mkdir()
errors = []
try:
    with (new / "model").open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
except OSError as error:
    errors.append(error.errno)
try:
    while True:
        writer.metric(1, {"loss": 1.0})
except OSError as error:
    errors.append(error.errno)
try:
    Checkpoints(folder).finish(2)
except OSError as error:
    errors.append(error.errno)
writer.event("error", message="The disk is full.", what_to_do="Free some space.")
writer.close("failed", "The disk is full. checkpoint-1 is complete.")
kept = Checkpoints(folder)
status = read_status(folder)
last = json.loads(folder.events.read_text().splitlines()[-1])
print(json.dumps([errors, kept.list(), status.state, status.reason, last["type"], last["state"]]))
"""


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB: a tmpfs where this user may mount one, else a limit on the size of files stands in for it."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False, capture_output=True
    )
    yield place, mounted.returncode == 0
    if mounted.returncode == 0:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_old_checkpoint_and_a_true_last_word(small_disk):
    place, real = small_disk
    done = subprocess.run(
        [sys.executable, "-c", FULL, place],
        preexec_fn=None if real else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors, kept, state, reason, last_type, last_state = json.loads(done.stdout)
    # A file size limit stops the big files only: `finish` then finds room for its own.
    assert errors == [28, 28, 28] if real else errors[:2] == [27, 27]
    assert 1 in kept
    assert (state, reason) == ("failed", "The disk is full. checkpoint-1 is complete.")
    assert (last_type, last_state) == ("state", "failed")


def test_requests_come_through_while_it_writes(folder):
    writer, inbox = RunWriter(folder, 1), Inbox(folder)
    sent = send_request(folder, "stop", by="test")
    (request,) = inbox.scan()
    writer.event("answer", id=request.id, ok=True, message="done")
    inbox.done(request)
    assert [event["id"] for event in RunReader(folder).events() if event["type"] == "answer"] == [sent]
    assert list(folder.control.iterdir()) == []


def test_a_second_end_adds_no_event(folder):
    for _ in range(2):
        RunWriter(folder, 1).close("stopped", "enough")
    assert [event["type"] for event in RunReader(folder).events()] == ["created", "state"]


def test_a_wrong_change_is_refused_at_once_and_the_heartbeat_goes_on(folder):
    writer = RunWriter(folder, 1)
    writer.start_heartbeat(0.02)
    with pytest.raises(TypeError, match="bogus"):
        writer.status(bogus=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="'gone' is no state"):
        writer.status(state="gone")
    beat = read_status(folder).heartbeat
    until(lambda: read_status(folder).heartbeat > beat)
    writer.stop_heartbeat()
    writer.status(step=7)  # nothing would write it later
    assert read_status(folder).step == 7
    writer.start_heartbeat(0.02)
    beat = read_status(folder).heartbeat
    until(lambda: read_status(folder).heartbeat > beat)
    writer.close("stopped")


def test_threads_open_a_file_once(folder, monkeypatch):
    opened, both = [], threading.Barrier(2)

    def slow(path, flags):
        opened.append(path)
        time.sleep(0.1)
        return create_file(path, flags)

    monkeypatch.setattr(jsonl, "create_file", slow)
    writer = RunWriter(folder, 1)
    threads = [threading.Thread(target=lambda: (both.wait(), writer.event("note"))) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    writer.release()
    assert opened == [folder.events]
    assert [event["type"] for event in RunReader(folder).events()] == ["created", "note", "note"]


def test_an_end_that_a_folder_prevents_is_no_full_disk(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(status, "MEMORY", tmp_path)
    writer = RunWriter(folder, 1)
    folder.status_lock.unlink(missing_ok=True)
    folder.status_lock.mkdir()
    with pytest.raises(OSError, match="is a folder"):
        writer.close("stopped")
    assert status.kept_reason(folder, 1) == (
        "The attempt had stopped, which could not be saved. status.lock is a folder. Expected a regular file."
    )
