"""SIGKILL of trainer, supervisor and both, at random moments and at every write: never a wrong state, nothing lost."""

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llf_core.launch import Run, local_process
from llf_core.launch.local_process import start_supervisor
from llf_core.runs import Checkpoints, create_run, read_status

MOMENTS = 9
LONG_MOMENTS = 48
AT_ONCE = 6
STEPS = 60
ENDED = {"finished", "stopped", "failed", "lost"}


def kill(process):
    """SIGKILL to exactly this process, where it still lives."""
    if process is not None and process.alive():
        os.kill(process.pid, signal.SIGKILL)


def wait_until_gone(run, seconds=120):
    """Waits until none of its processes is left; a state that is shown meanwhile must fit what lives."""
    end = time.monotonic() + seconds
    while True:
        before = read_status(run.folder)
        alive = [
            process
            for process in (before.trainer, before.supervisor_process)
            if process is not None and process.alive()
        ]
        if not alive:
            return run.status()
        shown = run.status().state
        if all(process.alive() for process in alive):
            assert shown != "lost", "a run that lives was shown as lost"
        assert time.monotonic() < end, f"it stays {shown}"
        time.sleep(0.02)


def check(run):
    """What must hold after any kill: the state is true, and what was said to be saved is there."""
    final = run.status()
    assert final.state in ENDED
    if final.state in {"finished", "stopped"}:
        # The kill may have come after the last word: the state is true then, and the exit code tells of the kill.
        assert final.exit_code in {0, None, -signal.SIGKILL}
    columns = run._reader.metrics()
    steps = columns.steps("loss").tolist()
    assert steps == list(range(1, len(steps) + 1))
    assert columns.values("loss").tolist() == [1 / step for step in steps]
    events = run.events()
    saved = [event["step"] for event in events if event["type"] == "checkpoint"]
    kept = Checkpoints(run.folder).list()
    # A kill may fall between a whole checkpoint and the event that tells of it.
    assert len(kept) >= min(2, len(set(saved)))
    assert {step for step in saved if step >= min(kept)} <= set(kept)
    for step in kept:
        assert (Checkpoints(run.folder).path(step) / "model").read_text() == str(step) * 100
    assert final.step <= STEPS
    return final


def finish(run, command):
    """Resumes until it finishes; the result is what an unbroken run leaves."""
    if run.state != "finished":
        latest = Checkpoints(run.folder).latest()
        run.resume(command=command(run.folder, "brief"))
        resumed = [event for event in run.events() if event["type"] == "resumed"][-1]
        assert resumed["checkpoint"] == (latest and f"checkpoints/{latest.name}")
        assert run.wait(120, progress=False).state == "finished"
        wait_until_gone(run)
    assert check(run).state == "finished"
    assert run.metrics()["loss"].tolist() == [1 / step for step in range(1, STEPS + 1)]
    assert list(run.folder.control.iterdir()) == []


def one_moment(command, who, wait):
    """One run, killed after `wait` seconds."""
    folder = create_run("a: 1\n", f"kill {who}")
    start_supervisor(folder, command=command(folder, "brief"))
    run = Run(folder)
    time.sleep(wait)
    now = read_status(folder)
    # The trainer first: killed the other way round, it may say its last word between.
    for process in {
        "trainer": [now.trainer],
        "supervisor": [now.supervisor_process],
        "both": [now.trainer, now.supervisor_process],
    }[who]:
        kill(process)
    final = wait_until_gone(run)
    check(run)
    if who == "trainer":
        assert final.state != "lost"
    finish(run, command)
    return who, final.state


def at_random_moments(command, count):
    seed = int(os.environ.get("LLF_TEST_SEED", time.time_ns() % 2**32))
    print(f"LLF_TEST_SEED={seed}")  # noqa: T201 - shown where it fails
    chance = random.Random(seed)
    moments = [(("trainer", "supervisor", "both")[n % 3], chance.uniform(0, 1.5)) for n in range(count)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seen = list(pool.map(lambda moment: one_moment(command, *moment), moments))
    assert len(seen) == count
    assert {state for _, state in seen} <= ENDED
    return {state for who, state in seen if who == "trainer"}


def test_at_random_moments(command):
    assert at_random_moments(command, MOMENTS) <= {"failed", "finished"}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_at_many_random_moments(command):
    assert "failed" in at_random_moments(command, LONG_MOMENTS)


SUPERVISOR_POINTS = [
    "events.append:1", "events.appended:1", "status.written:2", "status.renamed:2", "trainer.forked:1",
    "trainer.recorded:1", "trainer.ended:1",
]  # fmt: skip


@pytest.mark.parametrize("point", SUPERVISOR_POINTS)
def test_the_supervisor_at_every_write(command, point):
    folder = create_run("a: 1\n", "fault")
    try:
        start_supervisor(folder, {"LLF_FAULT": f"{point}@supervisor_process"}, command(folder, "brief"))
    except RuntimeError as error:
        assert "did not start" in str(error)  # noqa: PT017 - some points come before the first word, some after
    run = Run(folder)
    wait_until_gone(run)
    # Where nothing was started, or it was started and exited without a final status, nobody claims otherwise.
    assert check(run).state in {"finished", "failed", "lost"}
    finish(run, command)


@pytest.mark.parametrize("point", ["status.written:1", "status.renamed:1"])
def test_a_supervisor_that_dies_at_its_first_word_is_an_error_at_once(command, point, monkeypatch):
    monkeypatch.setattr(local_process, "REGISTRATION_SECONDS", 1e6)  # its end is noticed, not the time
    folder = create_run("a: 1\n", "fault")
    with pytest.raises(RuntimeError, match="did not start"):
        start_supervisor(folder, {"LLF_FAULT": f"{point}@supervisor_process"}, command(folder, "brief"))
    run = Run(folder)
    assert run.state == "failed"
    finish(run, command)


def test_a_trainer_starts_only_when_it_is_written_down(command):
    """Killed between fork and record, the supervisor leaves a trainer that nobody knows: it must not run."""
    folder = create_run("a: 1\n", "fault")
    start_supervisor(folder, {"LLF_FAULT": "trainer.forked:1@supervisor_process"}, command(folder, "brief"))
    run = Run(folder)
    assert wait_until_gone(run).state == "lost"
    time.sleep(1)
    assert not folder.metrics.exists()


@pytest.mark.parametrize("point", ["metrics.append", "events.appended", "status.written", "complete.written",
                                   "complete.renamed", "checkpoint.uncounted", "checkpoint.removed"])  # fmt: skip
@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.long)])
def test_the_trainer_at_every_write(command, point, count):
    folder = create_run("a: 1\n", "fault")
    start_supervisor(folder, {"LLF_FAULT": f"{point}:{count}@program"}, command(folder, "brief"))
    run = Run(folder)
    final = wait_until_gone(run)
    check(run)
    assert (final.state, final.exit_code) == ("failed", -signal.SIGKILL)
    finish(run, command)
