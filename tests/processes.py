"""Finds what a test has started, whoever its parent is by now."""

import os
from pathlib import Path

import psutil


def processes_of(home):
    """All processes of this machine that were started with this `LLF_HOME`, this one excepted."""
    mark = f"LLF_HOME={home}\0".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes() and int(environ.parent.name) != os.getpid():
                found.append(psutil.Process(int(environ.parent.name)))
        except (OSError, psutil.NoSuchProcess):
            continue  # ended meanwhile, or somebody else's
    return found


def end(processes, seconds=10):
    """Kills them and waits for them to be gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=seconds)
