"""Runs of a small program under a real supervisor. Every process that a test starts is ended after it."""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from llf_core.launch import Run
from llf_core.launch.detach import start_supervisor
from llf_core.runs import create_run

PROGRAM = Path(__file__).with_name("program.py")


def processes_of(home):
    """All processes of this machine that were started with this `LLF_HOME`."""
    mark = f"LLF_HOME={home}\0".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes() and int(environ.parent.name) != os.getpid():
                found.append(psutil.Process(int(environ.parent.name)))
        except (OSError, psutil.NoSuchProcess):
            continue  # ended meanwhile, or somebody else's
    return found


@pytest.fixture(autouse=True)
def no_process_stays(llf_home):
    """Ends what a test left behind, known to its run folder or not."""
    yield
    left = processes_of(llf_home)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=10)


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
    """`until(fact)`: waits for it, at most 30 s; returns what it returned."""

    def wait(fact, seconds=30):
        end = time.monotonic() + seconds
        while not (value := fact()):
            assert time.monotonic() < end, "it did not come"
            time.sleep(0.01)
        return value

    return wait
