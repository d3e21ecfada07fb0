"""The process that copies a run, under a real supervisor: what is at the place when everything has ended."""

import os
import signal
from dataclasses import replace

import pytest

from llf_core.config import ConfigError
from llf_core.config.sections import is_place
from llf_core.launch import Run, launch
from llf_core.launch.fetch_run import fetch
from llf_core.launch.local_process import start_supervisor
from llf_core.runs import create_run, read_status
from llf_core.runs.folder import run_ids
from llf_core.runs.run_store import RunStore, SyncError, run_place
from tests.processes import processes_of
from tests.processes import wait_for_supervisor as ended


@pytest.fixture
def place(tmp_path):
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def holds(command, place, until):
    """A run that has made 20 steps and waits, with what copies it."""
    folder = create_run(f"model_name_or_path: tiny\nstage: sft\nsync_to: {place}\n", "copied")
    start_supervisor(folder, None, command(folder, "holds"))
    run = Run(folder)
    until(lambda: run.status().step == 20)
    return run


def copied(run, place):
    return RunStore(run_place(str(place), run.id))


def test_a_termination_request_leaves_a_checkpoint_and_its_copy(holds, place, tmp_path):
    os.kill(holds.status().supervisor_process.pid, signal.SIGTERM)
    assert ended(holds).state == "stopped"
    assert not [one for one in processes_of(holds.folder.home) if one.is_running()]
    other = fetch(run_place(str(place), holds.id), home=tmp_path / "other")
    assert (other.status().state, other.status().step) == ("stopped", 20)
    assert other.folder.metrics.read_bytes() == holds.folder.metrics.read_bytes()
    assert copied(holds, place).training_message() == ""


def test_copying_goes_on_when_the_supervisor_is_killed(holds, place, until):
    supervisor = holds.status().supervisor_process
    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: not supervisor.alive())
    (holds.folder.path / "go").touch()
    until(lambda: holds.status().final)
    until(lambda: processes_of(holds.folder.home) == [])
    newest = copied(holds, place).states()[0]
    assert newest.files["metrics.jsonl"][0] == holds.folder.metrics.stat().st_size
    assert "Copied the final state" in holds.log()


def test_a_place_that_fails_is_told_once_and_holds_up_no_resume(holds, place, command, until):
    until(lambda: copied(holds, place).states())
    place.rename(place.with_name("away"))
    place.write_text("a file in place of the folder")
    holds.stop()
    until(lambda: holds.status().final)
    until(lambda: [one for one in holds.events() if one["type"] == "warning"])
    assert holds.status().supervisor_process.alive()  # it still tries
    place.unlink()
    place.with_name("away").rename(place)
    place.chmod(0o700)
    holds.resume(command=command(holds.folder, "brief"))
    assert ended(holds).state == "finished"
    assert [one["key"] for one in holds.events() if one["type"] == "warning"] == ["sync_to"]
    assert copied(holds, place).states()[0].attempt == 2


def test_a_run_that_another_machine_trains_is_not_resumed_here(holds, place, command):
    holds.kill()
    ended(holds)
    store = copied(holds, place)
    store.beat(replace(read_status(holds.folder), state="running"))
    beat = place / holds.id / "heartbeat.json"
    beat.write_text(beat.read_text().replace(read_status(holds.folder).boot_id, "of-another-machine"))
    with pytest.raises(RuntimeError, match="still trains this run"):
        holds.resume(command=command(holds.folder, "brief"))
    assert read_status(holds.folder).attempt == 1


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("{}/none", "none does not exist"),
        ("ssh://user:word@box/runs", "has credentials"),
        ("file://{}/none", "none does not exist"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_start(tmp_path, llf_home, place, message):
    config = f"model_name_or_path: smollm2-135m-instruct\ndataset: llf_demo\nsync_to: {place.format(tmp_path)}\n"
    with pytest.raises(ConfigError, match=message) as error:
        launch(config)
    assert "word" not in str(error.value)
    assert run_ids() == ()


def test_what_is_no_copy_of_a_run_is_told(place, tmp_path):
    folder = create_run("stage: sft\n", "copied")
    RunStore(run_place(str(place), folder.id)).send(folder, 1)
    with pytest.raises(SyncError, match=f"is not a run. It holds {folder.id}"):
        fetch(str(place))
    with pytest.raises(SyncError, match="There is no copy of a run at"):
        fetch(str(tmp_path / "nothing"))
    with pytest.raises(SyncError, match="has credentials"):
        fetch("s3://KEY:SECRET@bucket/run")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s3://bucket/run", True),
        ("ssh://box/folder/run", True),
        ("ssh://box/run", False),  # a run on another host
        ("./drive/run", True),
        ("20261124-142530-smollm2-sft-lora", False),
        ("last", False),
    ],
)
def test_a_copy_is_told_from_a_run(text, place):
    assert is_place(text) is place
