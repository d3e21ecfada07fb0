"""kill -9 of the real trainer, at random moments and at every write boundary: nothing that was saved is lost."""

import contextlib
import os
import random
import shutil
import signal
import time

import pytest

from llf_core.runs import Checkpoints, RunReader, read_status, status
from tests.core.training.forked_trainer import losses

SEED = int(os.environ.get("LLF_TEST_SEED", time.time_ns() % 1_000_000))
POINTS = (
    "status.written", "status.renamed", "events.append", "events.appended", "metrics.append", "metrics.appended",
    "complete.written", "complete.renamed", "checkpoint.flushed", "checkpoint.uncounted", "checkpoint.removed",
)  # fmt: skip


@pytest.fixture(autouse=True)
def soon_lost(monkeypatch):
    """A run that nobody was named for counts as lost after a second, where a launch has half a minute."""
    monkeypatch.setattr(status, "START_SECONDS", 1.0)


@pytest.fixture
def job(make_run):
    return lambda: make_run(max_steps=10, save_steps=2, val_size=0.25, eval_strategy="steps", eval_steps=5)


@pytest.fixture
def expected(trainer, job):
    """Losses of the run that nobody killed, and how long it took; made once for all tests here."""
    if trainer.expected is None:
        folder = job()
        start = time.monotonic()
        assert trainer.run(folder) == 0
        trainer.expected = losses(folder), time.monotonic() - start
    return trainer.expected


def check_killed(folder, before):
    """What must hold of a run whose trainer was killed."""
    reader = RunReader(folder)
    shown = reader.status()
    if shown.pid is None:
        # Killed before it was named, with no supervisor that knew it: it might still be starting for a while.
        deadline = time.monotonic() + status.START_SECONDS + 5
        assert shown.state in {"created", "lost"}
        while shown.state == "created" and time.monotonic() < deadline:
            time.sleep(0.2)
            shown = reader.status()
    assert shown.state in {"lost", "finished"}
    events = reader.events()
    announced = {event["step"] for event in events if event["type"] == "checkpoint"}
    removed = {event["step"] for event in events if event["type"] == "checkpoint_removed"}
    checkpoints = Checkpoints(folder)
    whole = set(checkpoints.list())
    # Of the announced ones only such as were about to be removed may be gone, and never the two newest.
    assert set(sorted(announced)[-2:]) <= whole
    assert not (removed & whole)
    if announced:
        assert int(checkpoints.latest().name.rpartition("-")[2]) >= max(announced)
    mine = losses(folder)
    assert mine["loss"].items() >= before["loss"].items()


def finish(trainer, folder, expected):
    """Resumes without a fault and compares the whole history."""
    if read_status(folder).state != "finished":
        status.begin_attempt(folder, read_status(folder).attempt + 1)
        assert trainer.run(folder) == 0, folder.log.read_text()[-2000:]
    assert read_status(folder).state == "finished"
    assert losses(folder) == expected
    assert (folder.output / "adapter_model.safetensors").is_file()


def kill_at_random_moments(trainer, job, expected, moments):
    history, seconds = expected
    print(f"LLF_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    for _ in range(moments):
        folder = job()
        for _ in range(chance.choice([1, 1, 2])):
            before = losses(folder)
            pid = trainer.start(folder)
            time.sleep(chance.uniform(0, seconds))
            with contextlib.suppress(ProcessLookupError):  # it may just have finished
                os.kill(pid, signal.SIGKILL)
            trainer.wait()
            check_killed(folder, before)
            if read_status(folder).state == "finished":
                break
            status.begin_attempt(folder, read_status(folder).attempt + 1)
        if read_status(folder).state != "finished":
            assert trainer.run(folder) == 0, folder.log.read_text()[-2000:]
        finish(trainer, folder, history)
        shutil.rmtree(folder.path)


def test_kill_at_random_moments(trainer, job, expected):
    kill_at_random_moments(trainer, job, expected, 6)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_kill_at_50_random_moments(trainer, job, expected):
    kill_at_random_moments(trainer, job, expected, 50)


def kill_at(trainer, job, expected, point, count):
    folder = job()
    code = trainer.run(folder, f"{point}:{count}")
    if code == 0:
        assert read_status(folder).state == "finished"  # the point is reached less often than that
        return False
    assert code == -signal.SIGKILL
    check_killed(folder, {"loss": {}})
    finish(trainer, folder, expected[0])
    shutil.rmtree(folder.path)
    return True


@pytest.mark.parametrize("point", POINTS)
def test_kill_at_a_write_boundary(trainer, job, expected, point):
    assert kill_at(trainer, job, expected, point, 2)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("point", POINTS)
def test_kill_at_every_write_boundary(trainer, job, expected, point):
    count = 1
    while kill_at(trainer, job, expected, point, count):
        count += 1
    assert count > 2
