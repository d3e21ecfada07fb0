"""What is said of a trainer that left without a word: one sentence a person can act on."""

import signal

import pytest

from llf_core.launch.supervisor import ProcessEnd, exit_reason
from llf_core.runs import Checkpoints, RunWriter, create_run, status


@pytest.fixture
def folder():
    folder = create_run("a: 1\n", "x")
    status.update(folder, state="running", step=7, total=9)
    return folder


def judge(folder, code, **facts):
    return exit_reason(folder, status.read_status(folder), ProcessEnd(code, **facts))


@pytest.fixture
def saved(folder):
    path = Checkpoints(folder).path(5)
    path.mkdir(parents=True)
    (path / "model").write_text("x")
    Checkpoints(folder).finish(5)
    return folder


SAFE = "checkpoint-5 is complete: resume continues from it."
NOTHING = "There is no checkpoint yet: resume starts over."


def test_kill(saved):
    assert judge(saved, -9, kill_requested=True) == ("failed", f"Killed by the user at step 7 of 9. {SAFE}")


def test_memory(saved, folder):
    state, reason = judge(saved, -9, out_of_memory=True, memory_limit=8_000_000_000)
    assert state == "failed"
    assert "killed by the memory limit of 8.0 GB" in reason
    assert "per_device_train_batch_size" in reason
    assert reason.endswith(SAFE)
    assert "killed by the system, which ran out of memory" in judge(saved, -9, out_of_memory=True)[1]


def test_a_child_killed_for_memory_is_no_reason_for_another_end(folder):
    assert "memory" not in judge(folder, -signal.SIGTERM, out_of_memory=True, memory_limit=1)[1]


def test_stop(saved):
    assert judge(saved, -signal.SIGTERM, stop_requested=True)[0] == "stopped"
    assert judge(saved, 0, stop_requested=True)[0] == "stopped"
    assert judge(saved, -9, stop_requested=True)[0] == "failed"


def test_stopped_needs_a_checkpoint(folder):
    assert judge(folder, -signal.SIGTERM, stop_requested=True) == (
        "failed",
        "Stopped at step 7 of 9, before the first checkpoint. Restart it with resume.",
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-signal.SIGKILL, "The trainer was terminated by SIGKILL at step 7 of 9. " + NOTHING),
        (-signal.SIGSEGV, "The trainer crashed with SIGSEGV (see log.txt) at step 7 of 9. " + NOTHING),
        (-63, "The trainer crashed with signal 63 (see log.txt) at step 7 of 9. " + NOTHING),
        (0, "The trainer exited without a final status (see log.txt) at step 7 of 9. " + NOTHING),
        (5, "The trainer exited with code 5. See log.txt. " + NOTHING),
        (2, "The trainer exited with code 2. See log.txt."),
    ],
)
def test_sudden_ends(folder, code, words):
    assert judge(folder, code) == ("failed", words)


def test_before_the_first_step():
    assert "before its first step" in judge(create_run("a: 1\n", "x"), -9)[1]


def test_the_last_line_of_a_traceback_is_the_reason(folder):
    folder.log.write_text(
        'step 1\nTraceback (most recent call last):\n  File "x.py", line 1, in <module>\n    f()\n'
        "torch.OutOfMemoryError: CUDA out of memory\nterminate called without an active exception\n"
    )  # fmt: skip
    assert judge(folder, 1)[1] == f"torch.OutOfMemoryError: CUDA out of memory. {NOTHING}"


def test_without_a_traceback_the_last_line_is(folder):
    folder.log.write_text("sh: 1: exec: /nowhere: not found\n\n")
    assert judge(folder, 127)[1] == f"sh: 1: exec: /nowhere: not found. {NOTHING}"


def test_a_very_long_line_is_cut(folder):
    folder.log.write_text("ValueError: " + "x" * 5000 + "\n")
    assert len(judge(folder, 1)[1]) < 500


def test_an_error_event_of_this_attempt_comes_before_the_log(folder):
    RunWriter(folder, 1).event("error", message="Row 3 has no answer.", what_to_do="Add one.")
    folder.log.write_text("ValueError: x\n")
    assert judge(folder, 2)[1] == "Row 3 has no answer. Add one."
    status.update(folder, state="failed")
    status.begin_attempt(folder, 2)
    status.update(folder, state="running", step=7, total=9)
    assert judge(folder, 2)[1] == "ValueError: x."
