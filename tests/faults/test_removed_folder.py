"""The folder of a live run is removed or moved: what its supervisor and trainer, which are real, do then."""

import shutil
import subprocess
import time

import psutil
import pytest

from llf_core.launch import launch
from llf_core.launch.supervisor import Supervisor
from llf_core.runs import create_run
from tests.faults.jupyter import write_config
from tests.processes import has_ended, processes_of


def remove(folder):
    """`rm -rf`, again where the trainer made a file meanwhile."""
    while folder.path.exists():
        subprocess.run(["rm", "-rf", folder.path], check=False, capture_output=True)


def wait_until(fact, seconds=120):
    until = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


@pytest.mark.launches
def test_a_run_whose_folder_was_removed_ends(settings, tmp_path, llf_home):
    run = launch(write_config(tmp_path, settings | {"max_steps": 100_000, "save_steps": 100_000, "threads": 1}))
    wait_until(lambda: run.status().step > 2)
    now = run.status()
    processes = [psutil.Process(now.pid), psutil.Process(now.supervisor_process.pid)]
    assert {one.pid for one in processes} <= {one.pid for one in processes_of(llf_home)}
    remove(run.folder)
    wait_until(lambda: all(has_ended(one) for one in processes))
    assert processes_of(llf_home) == []
    assert not run.folder.path.exists()


def test_a_moved_run_goes_on_and_ends_where_it_is(tmp_path):
    folder = create_run("model_name_or_path: tiny\nstage: sft\n", "moved")
    supervisor = Supervisor(folder)
    elsewhere = folder.path.rename(tmp_path / "elsewhere")
    assert not supervisor._is_removed()
    shutil.copytree(elsewhere, folder.path)  # another one at its path
    assert not supervisor._is_removed()
    (elsewhere / "status.json").unlink()
    assert supervisor._is_removed()
    assert not supervisor._stays_removed()  # a network drive may miss a file for a moment
    shutil.copy(folder.status, elsewhere)
    assert not supervisor._is_removed()
    shutil.rmtree(elsewhere)
    assert supervisor._is_removed()
