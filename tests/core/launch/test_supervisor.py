"""A real supervisor over a real process: how each ending is told."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from llf_core.launch import Run
from llf_core.launch.local_process import THREAD_VARIABLES, start_supervisor
from llf_core.runs import RunFolder, create_run, read_status, send_request, status, update_env
from llf_core.runs.files import locked, replace_file
from llf_core.runs.jsonl import append
from tests.processes import end, open_descriptors, processes_of
from tests.processes import wait_for_supervisor as ended


def events(run, kind):
    return [event for event in run.events() if event["type"] == kind]


def test_a_run_that_finishes_by_itself(started):
    run = started("short")
    final = ended(run)
    assert (final.state, final.exit_code, final.step, final.reason) == ("finished", 0, 20, None)
    assert [event["state"] for event in events(run, "state")] == ["starting", "running", "finished"]
    assert final.trainer is not None
    assert not final.trainer.alive()
    assert run.metrics()["loss"].tolist() == [1 / step for step in range(1, 21)]


def test_what_is_wrong_with_a_run_is_said_once(started):
    run = started("ill")
    assert ended(run).state == "finished"
    (finding,) = events(run, "finding")
    assert (finding["rule"], finding["attempt"]) == ("diverged", 1)
    assert finding["message"].startswith("The loss has risen from")


def test_an_event_of_another_hand_ends_no_run(command):
    folder = create_run("{", "garbage")
    append(folder.events, {"v": 1, "type": "finding", "attempt": "soon"})
    start_supervisor(folder, None, command(folder, "short"))
    run = Run(folder)
    assert ended(run).state == "finished"
    assert run.log() == ""


def test_curves_that_cannot_be_read_end_no_run(command):
    folder = create_run("model_name_or_path: tiny\nstage: sft\n", "no curves")
    folder.metrics.unlink(missing_ok=True)
    folder.metrics.mkdir()
    start_supervisor(folder, None, command(folder, "error"))
    run = Run(folder)
    assert ended(run).reason == "Row 3 has no answer. Add one."
    assert "The metrics could not be checked: " in run.log()


def test_a_status_that_cannot_be_read_leaves_the_trainer_supervised(started, until):
    run = started("silent")
    now = until(lambda: run.status().pid and run.status())
    with locked(run.folder.status_lock):  # else the supervisor, which may be writing it, would replace it
        whole = run.folder.status.read_bytes()
        replace_file(run.folder.status, b"{")
    until(lambda: "The run is not fully supervised: " in run.log())
    assert now.trainer.alive()
    assert now.supervisor_process.alive()
    replace_file(run.folder.status, whole)
    run.stop(grace=0)
    assert ended(run).state == "failed"
    assert not now.trainer.alive()
    assert run.log().count("not fully supervised") == 1


def test_it_belongs_to_nobody(started, until):
    run = started("train")
    trainer = until(lambda: run.status().pid)
    guard = psutil.Process(run.status().supervisor_process.pid)
    # Its parent has gone: init, or whoever takes in orphans here, is the parent now.
    assert guard.ppid() != os.getpid()
    assert os.getsid(guard.pid) != os.getsid(0)
    assert os.getpgid(trainer) == trainer
    assert guard.pid not in {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        ("raises", 1, "ValueError: the learning rate is a banana."),
        ("error", 2, "Row 3 has no answer. Add one."),
        ("exit-0", 0, "exited without a final status"),
        ("exit-3", 3, "exited with code 3"),
        ("crashes", -signal.SIGSEGV, "crashed with SIGSEGV"),
    ],
)
def test_how_it_failed_is_told(started, mode, code, words):
    run = started(mode)
    final = ended(run)
    assert (final.state, final.exit_code) == ("failed", code)
    assert words in final.reason
    assert "Traceback" not in final.reason
    assert "\n" not in final.reason
    assert events(run, "state")[-1]["reason"] == final.reason


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
def test_a_signal_from_outside_is_named_with_what_is_safe(started, until, number):
    run = started("train")
    until(lambda: events(run, "checkpoint"))
    os.kill(run.status().pid, number)
    final = ended(run)
    assert (final.state, final.exit_code) == ("failed", -number)
    assert f"terminated by {number.name} at step" in final.reason
    assert "is complete: resume continues from it." in final.reason


def test_kill_by_request(started, until):
    run = started("children")
    until(lambda: run.state == "running" and "child" in run.log())
    child = psutil.Process(int(run.log().split()[-1]))
    request = send_request(run.folder, "kill", by="test")
    final = ended(run)
    assert (final.state, final.exit_code) == ("failed", -signal.SIGKILL)
    assert final.reason.startswith("Killed by the user at step")
    assert [(event["id"], event["by"]) for event in events(run, "request")] == [(request, "test")]
    assert [(event["id"], event["ok"]) for event in events(run, "answer")] == [(request, True)]
    assert list(run.folder.control.iterdir()) == []
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_children_of_a_killed_trainer_go_too(started, until):
    run = started("children")
    until(lambda: "child" in run.log())
    child = psutil.Process(int(run.log().split()[-1]))
    os.kill(run.status().pid, signal.SIGKILL)
    assert ended(run).state == "failed"
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_stop_is_the_trainers_and_leaves_a_checkpoint(started, until):
    run = started("train")
    until(lambda: run.status().step > 2)
    run.stop(wait=True)
    final = ended(run)
    assert (final.state, final.exit_code) == ("stopped", 0)
    assert events(run, "answer")[-1]["ok"] is True
    assert run.summary()["checkpoints"][-1] == final.step


def test_a_stop_that_nobody_heeds_becomes_sigterm(started, until):
    run = started("busy")
    until(lambda: run.state == "running")
    request = run.stop(grace=0.1)
    final = ended(run)
    assert final.state == "stopped"
    # The trainer never read the request; the supervisor clears it away with an answer.
    assert [(event["id"], event["ok"]) for event in events(run, "answer")] == [(request, False)]


def test_a_stop_within_its_grace_is_left_to_the_trainer(started, until):
    run = started("busy")
    until(lambda: run.state == "running")
    run.stop(grace=60)
    time.sleep(1.2)
    assert run.state == "running"


@pytest.mark.parametrize("grace", ["soon", -3, None])
def test_a_grace_that_is_no_time_counts_as_two_minutes(started, until, grace):
    run = started("busy")
    until(lambda: run.state == "running")
    send_request(run.folder, "stop", {"grace": grace})
    time.sleep(1.2)
    assert run.state == "running"


def test_sigterm_to_the_supervisor_lets_the_trainer_save(started, until):
    run = started("train")
    until(lambda: run.status().step > 2)
    os.kill(run.status().supervisor_process.pid, signal.SIGTERM)
    assert ended(run).state == "stopped"


def test_a_stop_before_anything_was_saved_is_no_stopped(started, until):
    run = started("silent")
    until(lambda: run.status().pid)
    run.stop(grace=0)
    final = ended(run)
    assert (final.state, final.exit_code) == ("failed", -signal.SIGTERM)
    assert final.reason == "Stopped before its first step. Restart it with resume."


def test_the_supervisor_keeps_the_heartbeat_of_a_trainer_that_does_not(started, until):
    run = started("silent")
    first = until(lambda: run.status().pid and run.status()).heartbeat
    until(lambda: read_status(run.folder).heartbeat > first + 1.5)
    assert run.state == "starting"


def test_where_the_supervisor_is_killed_the_trainer_says_its_own_last_word(started, until):
    run = started("train")
    until(lambda: run.state == "running")
    os.kill(run.status().supervisor_process.pid, signal.SIGKILL)
    until(lambda: not run.status().supervisor_process.alive())
    assert run.state == "running"
    run.stop(wait=True)
    assert (run.state, read_status(run.folder).state) == ("stopped", "stopped")


def test_where_both_are_killed_the_run_is_lost(started, until):
    run = started("train")
    until(lambda: run.state == "running")
    now = run.status()
    os.kill(now.supervisor_process.pid, signal.SIGKILL)
    os.kill(now.pid, signal.SIGKILL)
    assert until(lambda: run.state == "lost")
    assert read_status(run.folder).state in {"running", "stopping"}
    assert "exited without a final status" in run.status().reason


def test_requests_of_an_earlier_attempt_do_not_reach_the_next(command):
    folder = create_run("a: 1\n", "x")
    old = send_request(folder, "stop", by="yesterday")
    start_supervisor(folder, command=command(folder, "short"))
    from llf_core.launch import Run

    run = Run(folder)
    assert ended(run).state == "finished"
    assert [(event["id"], event["ok"]) for event in events(run, "answer")] == [(old, False)]


def test_a_run_that_was_ended_before_its_supervisor_looked_starts_nothing(command):
    folder = create_run("a: 1\n", "x")
    status.update(folder, state="failed", reason="Killed.")
    start_supervisor(folder, command=command(folder, "short"))
    time.sleep(0.5)
    assert not folder.metrics.exists()
    assert read_status(folder).state == "failed"


def test_threads_are_those_of_the_first_attempt_and_the_users_stay(started, monkeypatch):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    run = started("environment", *THREAD_VARIABLES, "TOKEN", env={"MKL_NUM_THREADS": "7", "TOKEN": "secret"})
    ended(run)
    told = ast.literal_eval(run.log().splitlines()[0])
    from llf_core.launch.environment import usable_cpus

    threads = str(usable_cpus())
    assert told == dict.fromkeys(THREAD_VARIABLES, threads) | {"MKL_NUM_THREADS": "7", "TOKEN": "secret"}
    files = [path for path in run.folder.path.rglob("*") if path.is_file() and path.name != "log.txt"]
    assert not any(b"secret" in path.read_bytes() for path in files)


def test_threads_of_env_json(command, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    folder = create_run("a: 1\n", "x")
    update_env(folder, threads=3)
    start_supervisor(folder, command=command(folder, "environment", "OMP_NUM_THREADS"))
    from llf_core.launch import Run

    ended(Run(folder))
    assert "{'OMP_NUM_THREADS': '3'}" in Run(folder).log()


def test_a_command_that_is_not_there_is_told(llf_home):
    folder = create_run("a: 1\n", "x")
    start_supervisor(folder, command=["/nowhere/to/be/found"])
    from llf_core.launch import Run

    final = ended(Run(folder))
    assert (final.state, final.exit_code) == ("failed", 127)
    assert "not found" in final.reason


def test_a_supervisor_that_can_not_start_is_an_error_at_once(monkeypatch, command):
    folder = create_run("a: 1\n", "x")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not start"):
        start_supervisor(folder, command=command(folder, "short"))
    assert read_status(folder).state == "failed"


def test_a_log_that_is_a_folder_is_no_full_disk(command):
    folder = create_run("a: 1\n", "x")
    folder.log.mkdir()
    said = r"^The run's supervisor did not start: log\.txt is a folder\. Expected a regular file\.$"
    with pytest.raises(RuntimeError, match=said):
        start_supervisor(folder, command=command(folder, "short"))
    assert read_status(folder).state == "failed"


STARTER = """
import sys
from pathlib import Path
from llf_core.launch.local_process import start_supervisor
from llf_core.runs import RunFolder
start_supervisor(RunFolder(Path(sys.argv[1])), command=sys.argv[2:])
print("started", flush=True)
import time
time.sleep(3600)
"""


@pytest.mark.parametrize("how", ["group SIGINT", "group SIGKILL", "tree SIGKILL", "terminal closes"])
def test_it_outlives_whoever_started_it(command, until, how):
    folder = create_run("a: 1\n", "x")
    arguments = [sys.executable, "-c", STARTER, str(folder.path), *command(folder, "train")]
    if how == "terminal closes":
        master, slave = os.openpty()
        starter = subprocess.Popen(arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        assert os.read(master, 100).startswith(b"started")
        os.close(master)
    else:
        starter = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert starter.stdout.readline() == "started\n"
    from llf_core.launch import Run

    run = Run(folder)
    if how == "tree SIGKILL":
        for process in [*psutil.Process(starter.pid).children(recursive=True), psutil.Process(starter.pid)]:
            process.kill()
    elif how != "terminal closes":
        os.killpg(starter.pid, getattr(signal, how.split()[1]))
    else:
        starter.kill()
    starter.wait()
    at = until(lambda: run.status().step)
    until(lambda: run.status().step > at)
    assert run.state == "running"


def test_nothing_holds_the_notebooks_files_open(started, tmp_path, until):
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003 - its only way
        run = started("train")
        until(lambda: run.state == "running")
        for pid in (run.status().pid, run.status().supervisor_process.pid):
            held = {path for _, path in open_descriptors(pid)}
            assert str(tmp_path / "open") not in held
            assert str(run.folder.log) in held


def test_status_file_is_the_contracts(started):
    run = started("short")
    ended(run)
    value = json.loads(run.folder.status.read_text())
    assert set(value) == {
        "format", "state", "step", "total", "pid", "started", "ticks", "boot_id", "host", "heartbeat", "exit_code",
        "reason", "attempt", "supervisor", "created", "ended", "device", "step_seconds", "best", "finding",
        "mirror",
    }  # fmt: skip
    assert set(value["supervisor"]) == {"pid", "started", "ticks"}
    assert RunFolder(run.folder.path) == run.folder


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """`LLF_HOME` on a tmpfs of 1 MB; what takes all of it but so many bytes."""
    home = tmp_path / "small"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "llf-test", home], check=True)
    monkeypatch.setenv("LLF_HOME", str(home))

    def fill():
        free = shutil.disk_usage(home).free
        (home / "filler").write_bytes(bytes(free))

    yield fill
    end(processes_of(home))
    subprocess.run(["umount", "-l", home], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_named_whoever_meets_it(small_disk, command, until, tmp_path):
    words = f"The disk is full: {tmp_path / 'small'} has "
    # The supervisor's own first word.
    folder = create_run("a: 1\n", "full")
    small_disk()
    with pytest.raises(RuntimeError, match=words):
        start_supervisor(folder, None, command(folder, "short"))
    assert read_status(folder).reason.startswith(words)
    (tmp_path / "small" / "filler").unlink()
    # A trainer that dies without a word, and a supervisor that has no room for its answers.
    folder = create_run("dataset: llf_demo\nmodel_name_or_path: smollm2-135m-instruct\n", "full")
    start_supervisor(folder, None, ["/bin/sh", "-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit 1"])
    until(lambda: read_status(folder).pid)
    small_disk()
    (tmp_path / "go").touch()
    assert ended(Run(folder)).reason.startswith(words)
    assert (read_status(folder).state, read_status(folder).exit_code) == ("failed", 1)
    # Resuming finds no room either, and says so.
    with pytest.raises(RuntimeError, match=words):
        Run(folder).resume()
    assert read_status(folder).state == "failed"
    (tmp_path / "small" / "filler").unlink()
    Run(folder).resume(command=command(folder, "short"))
    assert ended(Run(folder)).state == "finished"
