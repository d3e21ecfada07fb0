"""A machine is wiped while it trains: another one goes on from the copy at `sync_to`, with the same losses."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from llf_core.launch import fetch
from llf_core.launch.environment import start_facts
from llf_core.launch.resume import resume
from llf_core.launch.sync_process import start_sync
from llf_core.runs import Checkpoints, RunReader, read_status, update_env
from llf_core.runs.checkpoints import COMPLETE
from llf_core.runs.config_file import run_config
from llf_core.runs.run_store import RunStore, SyncError, run_place
from tests.core.training.forked_trainer import losses

SEED = int(os.environ.get("LLF_TEST_SEED", time.time_ns() % 1_000_000))
SAVE_STEPS = 10


@pytest.fixture
def place(tmp_path):
    (tmp_path / "place").mkdir()
    return str(tmp_path / "place")


@pytest.fixture
def job(make_run, place):
    def make(sync_to=place):
        folder = make_run(max_steps=60, save_steps=SAVE_STEPS, sync_to=sync_to)
        update_env(folder, **start_facts(run_config(folder)))
        return folder

    return make


@pytest.fixture
def expected(trainer, job):
    """Losses of the run that nobody wiped, made once for the tests here."""
    if trainer.expected is None:
        folder = job(None)
        assert trainer.run(folder) == 0
        trainer.expected = losses(folder)
    return trainer.expected


def machine(trainer, folder):
    """A trainer and the process that copies its run, as a supervisor starts them."""
    trainer_pid = trainer.start(folder)
    with folder.log.open("ab") as log:
        return SimpleNamespace(trainer=trainer_pid, sync=start_sync(folder, log))


def await_that(fact, seconds=120):
    until = time.monotonic() + seconds
    while not (value := fact()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.005)
    return value


def synced(folder):
    """Step of the newest checkpoint that is copied; 0 without one."""
    return max((one["step"] for one in RunReader(folder).events() if one["type"] == "synced"), default=0)


def logged(folder):
    return max(map(int, losses(folder)["loss"]), default=0)


def wipe(trainer, processes, home):
    """Everything on the machine ends at once, and its disk is gone."""
    for pid in (processes.trainer, processes.sync.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    trainer.wait()
    processes.sync.wait()
    shutil.rmtree(home)


def train_until_copied(processes, folder, step):
    """Trains until that checkpoint is copied. The trainer, of which the steps are short, waits for the copy."""
    for checkpoint in range(SAVE_STEPS, step + 1, SAVE_STEPS):
        await_that(lambda checkpoint=checkpoint: max(Checkpoints(folder).list(), default=0) >= checkpoint)
        os.kill(processes.trainer, signal.SIGSTOP)
        await_that(lambda checkpoint=checkpoint: synced(folder) >= checkpoint)
        if checkpoint < step:
            os.kill(processes.trainer, signal.SIGCONT)


def end_of(processes):
    processes.sync.stdin.close()
    assert processes.sync.wait(120) == 0


def wipe_and_go_on(trainer, folder, place, home, chance):
    """Wipes a machine at a random moment after its first copy; returns the fetched run and the steps that were lost."""
    processes = machine(trainer, folder)
    first = await_that(lambda: synced(folder))
    moment = first + chance.randrange(35)
    await_that(lambda: logged(folder) >= moment or read_status(folder).final)
    copied, reached = synced(folder), logged(folder)
    wipe(trainer, processes, folder.home)
    run = fetch(run_place(place, folder.id), home=home)
    step = max(Checkpoints(run.folder).list())
    assert step >= copied
    assert not folder.path.exists()
    return run.folder, reached - step


def finish(trainer, folder, history):
    """Trains the fetched run to its end: the whole history is that of the run that nobody wiped."""
    if read_status(folder).state != "finished":
        resume(folder)
        assert read_status(folder).attempt == 2
        processes = machine(trainer, folder)
        assert trainer.wait() == 0, folder.log.read_text()[-2000:]
        end_of(processes)
    assert losses(folder) == history
    assert (folder.output / "adapter_model.safetensors").is_file()


def test_another_machine_repeats_the_losses_of_a_wiped_one(trainer, job, expected, place, tmp_path):
    print(f"LLF_TEST_SEED={SEED}")
    folder, _ = wipe_and_go_on(trainer, job(), place, tmp_path / "other", random.Random(SEED))
    (event,) = [one for one in RunReader(folder).events() if one["type"] == "fetched"]
    assert "each with its hash. Packages and processor are the same" in event["message"]
    finish(trainer, folder, expected)
    receipts = [one for one in RunReader(folder).events() if one["type"] == "receipt"]
    assert all(one["exact"] for one in receipts)
    newest = RunStore(run_place(place, folder.id)).states()[0]
    assert (newest.attempt, newest.step) == (2, 60)
    assert newest.files.keys() >= {"output/adapter_model.safetensors", "output.json"}
    third = fetch(run_place(place, folder.id), home=tmp_path / "third")  # a finished run has its result with it
    assert (third.output / "adapter_model.safetensors").read_bytes() == (
        folder.output / "adapter_model.safetensors"
    ).read_bytes()


def test_a_damaged_copy_is_not_taken_and_the_one_before_is(trainer, job, place, tmp_path):
    folder = job()
    processes = machine(trainer, folder)
    train_until_copied(processes, folder, 2 * SAVE_STEPS)
    wipe(trainer, processes, folder.home)
    url = run_place(place, folder.id)
    newest, before = RunStore(url).states()[:2]
    weights = newest.files[f"checkpoints/checkpoint-{newest.step}/adapter_model.safetensors"][1]
    with Path(url, "files", weights).open("r+b") as file:  # as long as it was
        file.write(b"other")
    run = fetch(url, home=tmp_path / "other").folder
    assert max(Checkpoints(run).list(), default=0) == before.step < newest.step
    (event,) = [one for one in RunReader(run).events() if one["type"] == "fetched"]
    assert f"The state of step {newest.step} was not taken" in event["message"]
    for state in RunStore(url).states():
        for _, sha in state.files.values():
            os.truncate(f"{url}/files/{sha}", 3)
    with pytest.raises(SyncError, match="no complete state of a run"):
        fetch(url, home=tmp_path / "third")


def test_a_run_that_a_machine_still_trains_is_not_fetched(trainer, job, place, tmp_path):
    folder = job()
    processes = machine(trainer, folder)
    train_until_copied(processes, folder, SAVE_STEPS)
    with pytest.raises(SyncError, match="still trains this run"):
        fetch(run_place(place, folder.id), home=tmp_path / "other")
    wipe(trainer, processes, folder.home)
    assert not (tmp_path / "other").exists()


def test_the_copy_here_that_is_older_goes_to_the_bin(trainer, job, place, tmp_path):
    folder = job()
    processes = machine(trainer, folder)
    assert trainer.wait() == 0
    end_of(processes)
    url = run_place(place, folder.id)
    assert fetch(url, home=folder.home).folder.path == folder.path  # it is as new
    assert not (folder.home / "bin").exists()
    (Checkpoints(folder).path(60) / COMPLETE).unlink()
    assert fetch(url, home=folder.home).folder.path == folder.path
    assert max(Checkpoints(folder).list()) == 60
    assert (folder.home / "bin" / folder.id / "config.yaml").is_file()
    moved = shutil.copytree(place, tmp_path / "elsewhere")  # a drive may have another path on another machine
    other = fetch(f"{moved}/{folder.id}", home=tmp_path / "other").folder
    assert run_config(other).launch.sync_to == str(moved)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_30_wiped_machines(trainer, job, expected, place, tmp_path):
    chance, lost = random.Random(SEED), []
    print(f"LLF_TEST_SEED={SEED}")
    for number in range(int(os.environ.get("LLF_TEST_WIPES", "30"))):
        folder, steps = wipe_and_go_on(trainer, job(), place, tmp_path / f"other-{number}", chance)
        lost.append(steps)
        finish(trainer, folder, expected)
        shutil.rmtree(folder.home)
    print(json.dumps({"wipes": len(lost), "save_steps": SAVE_STEPS, "lost": lost, "most": max(lost)}))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_another_machine_goes_on_from_s3(trainer, job, expected, tmp_path, monkeypatch):
    """Against moto's S3 server."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        address, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        check = [sys.executable, "-P", "-m", "llf_core.launch.sync_process", "--writable", "s3://runs"]
        missing = json.loads(subprocess.run(check, capture_output=True, text=True, check=True).stdout)
        assert missing.startswith("s3://runs cannot be written: ")
        import s3fs

        s3fs.S3FileSystem().mkdir("runs")
        assert json.loads(subprocess.run(check, capture_output=True, text=True, check=True).stdout) == ""
        original = job("s3://runs/of/me")
        folder, _ = wipe_and_go_on(trainer, original, "s3://runs/of/me", tmp_path / "other", random.Random(SEED))
        finish(trainer, folder, expected)
        newest = RunStore(run_place("s3://runs/of/me", folder.id)).states()[0]
        assert (newest.attempt, newest.step) == (2, 60)
        for path in folder.path.rglob("*"):
            assert not path.is_file() or b"a-secret-of-the-test" not in path.read_bytes()
    finally:
        server.stop()
