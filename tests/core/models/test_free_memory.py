"""Memory that a trainer's allocator keeps goes back to the system when it is asked for."""

import os
import subprocess
import sys

import pytest

from llf_core.launch.local_process import computing_environment
from llf_core.training import callbacks

MEASURE = """
import resource
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20

from llf_core.models.memory import release_free_memory
begun = resident()
blocks = [b"x" * 2**20 for _ in range(200)]
kept = blocks[::10]
del blocks
freed = resident()
release_free_memory()
print(begun, freed, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc keeps and releases memory so")
def test_gaps_between_what_is_used_are_given_back():
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        env=computing_environment(os.environ, 1),
        capture_output=True,
        text=True,
        check=True,
    )
    begun, freed, released = map(int, done.stdout.split())
    assert freed - begun > 190  # MiB: the allocator keeps what is free
    assert released - begun < 40  # 20 are used


def test_a_run_releases_memory_after_its_first_step_alone(monkeypatch):
    released = []
    monkeypatch.setattr(callbacks, "release_free_memory", lambda: released.append(True))
    callback = callbacks.FreedMemory()
    counts = []
    for _ in range(20):
        callback.on_step_end(None, None, None)
        counts.append(len(released))
    assert counts == [1] * 20
