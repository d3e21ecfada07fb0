"""How a process of a run ends: all is written, and modules are not destroyed. Real processes."""

import os
import subprocess
import sys

import pytest

from llf_core.runs import create_run, read_status

MARKER = """
import os, sys
class Late:
    def __del__(self, write=os.write):
        write(1, b"teardown\\n")
sys.late = Late()
"""
SCRIPT = (
    MARKER
    + """
import atexit, ctypes, threading, time
from llf_core.runs.process_log import exit_with

def slow():
    time.sleep(0.2)
    sys.stdout.write("thread\\n")

def main():
    atexit.register(sys.stdout.write, "atexit\\n")
    threading.Thread(target=slow).start()
    ctypes.CDLL(None).printf(b"buffered by C\\n")
    if sys.argv[1] == "raise":
        raise ValueError("broken")
    return int(sys.argv[1])

exit_with(main)
"""
)


@pytest.mark.parametrize("code", [0, 2])
def test_everything_is_written_and_nothing_is_torn_down(code):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(code)], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert sorted(done.stdout.splitlines()) == ["atexit", "buffered by C", "thread"]
    assert done.stderr == ""


def test_after_an_error_the_interpreter_ends_as_always():
    done = subprocess.run([sys.executable, "-c", SCRIPT, "raise"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert sorted(done.stdout.splitlines()) == ["atexit", "buffered by C", "teardown", "thread"]
    assert done.stderr.endswith("ValueError: broken\n")


def test_the_log_of_a_run_ends_with_its_error(tmp_path):
    folder = create_run("model_name_or_path: /nowhere\ndataset: llf_demo\n", "x")
    (tmp_path / "sitecustomize.py").write_text(MARKER)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-m", "llf_core.training.main", str(folder.path)]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2, done.stdout + done.stderr
    assert read_status(folder).state == "failed"
    assert "teardown" not in done.stdout
