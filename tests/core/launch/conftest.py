"""Runs of a small program under a real supervisor. Every process that a test starts is ended after it."""

import sys
import time
from pathlib import Path

import pytest

from llf_core.launch import Run, local_process
from llf_core.launch.local_process import start_supervisor
from llf_core.runs import create_run
from tests.processes import end, processes_of

PROGRAM = Path(__file__).with_name("program.py")


@pytest.fixture(autouse=True)
def no_process_stays(llf_home):
    """Ends what a test left behind, known to its run folder or not."""
    yield
    end(processes_of(llf_home))


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A supervisor may take its time to begin, on a machine that others use too."""
    monkeypatch.setattr(local_process, "REGISTRATION_SECONDS", 250.0)


@pytest.fixture
def command():
    """`command(folder, mode, *arguments)`: what starts the program."""

    def make(folder, mode, *arguments):
        return [sys.executable, str(PROGRAM), str(folder.path), mode, *arguments]

    return make


@pytest.fixture
def started(command):
    """`started(mode, env=None) -> Run`: the program in that mode, under a supervisor."""

    def start(mode, *arguments, env=None):
        folder = create_run("model_name_or_path: tiny\nstage: sft\n", "supervised")
        start_supervisor(folder, env, command(folder, mode, *arguments))
        return Run(folder)

    return start


@pytest.fixture
def until():
    """`until(fact)`: waits for it, at most two minutes; returns what it returned."""

    def wait(fact, seconds=120):
        end = time.monotonic() + seconds
        while not (value := fact()):
            assert time.monotonic() < end, "it did not come"
            time.sleep(0.01)
        return value

    return wait
