"""The handle on a run: wait, stop, kill, resume, metrics."""

import math
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from llf_core.config import ConfigError
from llf_core.launch import Run, active_runs, attach
from llf_core.launch.stored_config import check_stored
from llf_core.runs import Checkpoints, RunWriter, create_run, read_status, send_request, status
from llf_core.runs.process import ProcessId
from llf_core.runs.trust import sign_run

GONE = {"pid": 2**22 - 1, "started": 1.0, "ticks": 1}


@pytest.fixture
def folder():
    return create_run("model_name_or_path: tiny\nstage: sft\n", "x")


def test_attach_wants_a_run_that_is_there(folder):
    assert attach(folder.id).folder == folder
    with pytest.raises(FileNotFoundError, match="No run"):
        attach("20000101-000000-none")
    with pytest.raises(ValueError, match="is not a run id"):
        attach("../x")


def test_metrics_is_a_frame_by_step(folder):
    assert Run(folder).metrics().empty
    writer = RunWriter(folder, 1)
    writer.metric(1, {"loss": 2.0, "tokens": 10})
    writer.metric(3, {"eval_loss": math.inf})
    writer.metric(2, {"loss": math.nan})
    frame = Run(folder).metrics()
    expected = pd.DataFrame(
        {
            "loss": [2.0, math.nan, math.nan],
            "tokens": [10.0, math.nan, math.nan],
            "eval_loss": [math.nan, math.nan, math.inf],
        },
        index=pd.Index([1, 2, 3], name="step"),
    )
    pd.testing.assert_frame_equal(frame, expected)


def test_events_are_all_each_time(folder):
    run = Run(folder)
    assert len(run.events()) == len(run.events()) == 1


def test_wait_returns_at_the_end_or_at_the_timeout(started):
    run = started("short")
    began = time.monotonic()
    assert run.wait(0.05, progress=False).final is False
    assert time.monotonic() - began < 2
    assert run.wait(progress=False).state == "finished"


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
    said, error = child.communicate(timeout=20)
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
    """Its processes go, and its last word comes, between the look at them and the signal."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    seen = iter([True])
    monkeypatch.setattr(ProcessId, "alive", lambda self: next(seen, False))
    monkeypatch.setattr(
        "llf_core.runs.kill.killed_reason",
        lambda *_: status.update(folder, state="finished") and "Killed.",
    )
    status.update(folder, state="running", pid=gone.pid, started=1.0)
    before = len(Run(folder).events())
    assert Run(folder).kill().state == "finished"
    assert Run(folder).events()[before:] == []


def test_kill_on_another_machine_asks_there_and_says_where(folder, monkeypatch):
    monkeypatch.setattr("llf_core.runs.kill.ELSEWHERE_SECONDS", 0.2)
    status.update(folder, state="running", host="ws-2", heartbeat=time.time(), **GONE)
    with pytest.raises(RuntimeError, match="ws-2"):
        Run(folder).kill()
    (request,) = folder.control.iterdir()
    assert '"kill"' in request.read_text()
    assert read_status(folder).state == "running"


def test_resume_goes_on_from_the_newest_whole_checkpoint(started, until, command):
    run = started("brief")
    until(lambda: run.status().step > 12)
    run.stop(wait=True)
    step = Checkpoints(run.folder).list()[-1]
    torn = Checkpoints(run.folder).path(step + 1)
    torn.mkdir()
    (torn / "model").write_text("half")
    assert run.resume(command=command(run.folder, "brief")) is run
    assert run.wait(progress=False).state == "finished"
    final = run.status()
    assert (final.attempt, final.step) == (2, 60)
    (resumed,) = [event for event in run.events() if event["type"] == "resumed"]
    assert (resumed["attempt"], resumed["from_step"], resumed["checkpoint"]) == (
        2,
        step,
        f"checkpoints/checkpoint-{step}",
    )
    assert run.metrics()["loss"].tolist() == [1 / n for n in range(1, 61)]


def test_resume_of_a_run_that_goes_or_has_finished_is_refused(started, until):
    run = started("brief")
    until(lambda: run.state == "running")
    with pytest.raises(RuntimeError, match="is running"):
        run.resume()
    run.wait(progress=False)
    with pytest.raises(RuntimeError, match="has finished"):
        run.resume()
    assert read_status(run.folder).attempt == 1


REFUSED_NOW = {
    "stage: grpo\nmax_new_tokens: 12\n": (
        "`max_new_tokens` has no effect in stage grpo, which calls this `max_completion_length`.",
        "(line 2): set max_completion_length to 12 or remove max_new_tokens. Then {what} again.",
    ),
    "max_step: 3\n": ("Unknown key `max_step`. Did you mean `max_steps`?", "(line 1): rename to max_steps or remove"),
    "lora_rank: many\n": ("(`lora_rank`) is 'many'.", "(line 1): set to 8. Then {what} again."),
}
"""Keys of a run of an earlier version, and what stands against them by now."""


@pytest.mark.parametrize("keys", REFUSED_NOW)
@pytest.mark.parametrize("what", ["resume", "replay", "branch"])
def test_a_config_that_is_refused_by_now_is_told_before_anything_is_changed(llf_home, keys, what):
    text = f"{keys}dataset: llf_demo\nmodel_name_or_path: smollm2-135m-instruct\nreward_functions: [correct]\n"
    folder = create_run(text, "old")
    RunWriter(folder).close("stopped")
    checkpoints = Checkpoints(folder)
    checkpoints.path(2).mkdir(parents=True)
    (checkpoints.path(2) / "model").write_text("whole")
    checkpoints.finish(2)
    sign_run(folder)
    with pytest.raises(ConfigError) as error:
        getattr(Run(folder), what)()
    wrong, fix = REFUSED_NOW[keys]
    assert wrong in str(error.value)
    assert (
        f"This version of LLF does not accept the config of this run. In {folder.config} {fix.format(what=what)}"
    ) in str(error.value)
    now = read_status(folder)
    assert (now.state, now.attempt) == ("stopped", 1)
    assert [path.name for path in (llf_home / "runs").iterdir()] == [folder.id]


@pytest.mark.parametrize("what", ["resume", "replay"])
def test_an_address_that_is_kept_without_its_password_is_asked_for_before_anything_is_changed(
    llf_home, monkeypatch, what
):
    monkeypatch.delenv("LLF_URLS", raising=False)
    kept = "https://***@data.example.org/faq.jsonl"
    folder = create_run(f"dataset: {kept}\nmodel_name_or_path: smollm2-135m-instruct\n", "old")
    RunWriter(folder).close("stopped")
    sign_run(folder)
    with pytest.raises(ConfigError, match=rf"Set the environment variable LLF_URLS .*, then {what}\.") as error:
        getattr(Run(folder), what)()
    assert kept in str(error.value)
    assert (read_status(folder).state, read_status(folder).attempt) == ("stopped", 1)
    assert [path.name for path in (llf_home / "runs").iterdir()] == [folder.id]
    check_stored(folder, what, {"LLF_URLS": "https://a:b@other.org/x https://me:s3cr3t@data.example.org/faq.jsonl"})


def test_resume_of_a_lost_run(started, until, command):
    run = started("brief")
    until(lambda: Checkpoints(run.folder).latest())
    now = run.status()
    os.kill(now.supervisor_process.pid, signal.SIGKILL)
    os.kill(now.pid, signal.SIGKILL)
    until(lambda: run.state == "lost")
    run.resume(command=command(run.folder, "brief"))
    assert run.wait(progress=False).state == "finished"


def test_a_run_that_failed_before_its_first_checkpoint_starts_anew(started, command):
    run = started("raises")
    run.wait(progress=False)
    run.resume(command=command(run.folder, "short"))
    assert run.wait(progress=False).state == "finished"
    (resumed,) = [event for event in run.events() if event["type"] == "resumed"]
    assert (resumed["from_step"], resumed["checkpoint"]) == (0, None)


RESUME = """
import sys
from llf_core.launch import attach
try:
    attach(sys.argv[1]).resume(command=sys.argv[2:])
    print("resumed")
except RuntimeError as error:
    print("refused", error)
"""


def test_two_that_resume_at_once_start_one_trainer(started, command):
    run = started("exit-3")
    run.wait(progress=False)
    arguments = [sys.executable, "-c", RESUME, run.id, *command(run.folder, "brief")]
    children = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = sorted(child.communicate(timeout=60)[0].split()[0] for child in children)
    assert said == ["refused", "refused", "resumed"]
    assert run.wait(progress=False).state == "finished"
    assert read_status(run.folder).attempt == 2
    assert run.metrics()["loss"].tolist() == [1 / n for n in range(1, 61)]


def test_a_stop_sent_right_after_resume_is_heeded(started, until, command):
    run = started("brief")
    until(lambda: Checkpoints(run.folder).latest())
    run.kill()
    run.resume(command=command(run.folder, "train"))
    send_request(run.folder, "stop", by="test")
    assert run.wait(60, progress=False).state == "stopped"


def test_active_runs_names_what_uses_the_device(started, until):
    run = started("train")
    until(lambda: run.state == "running")
    assert [row.id for row in active_runs()] == [run.id]
    run.kill()
    assert active_runs() == []


def test_summary_and_repr(started):
    import json

    run = started("short")
    run.wait(progress=False)
    facts = run.summary()
    assert facts["state"] == "finished"
    assert facts["checkpoints"] == [15, 20]
    assert facts["metrics"] == {"loss": 0.05}
    assert facts["output"] is None
    assert facts["bytes"] > 1000
    json.dumps(facts, allow_nan=False)
    assert repr(run) == f"Run('{run.id}', finished, step 20 of 20)"
