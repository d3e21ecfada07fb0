"""Starts a run as a cell does, in a process of its own that a fault may end: `python launcher.py CONFIG PROGRAM`."""

import sys
from pathlib import Path

from llf_core.launch import launch
from llf_core.launch.launchers import launcher


def start_program(folder, env, command):
    """Starts the tests' small program in the trainer's place."""
    del command
    start_supervisor(folder, env, [sys.executable, sys.argv[2], str(folder.path), "brief"])


start_supervisor, launcher.start_supervisor = launcher.start_supervisor, start_program
print(launch(Path(sys.argv[1])).id, flush=True)
