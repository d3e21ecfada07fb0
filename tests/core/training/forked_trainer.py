"""Real trainers, forked from a process that has loaded torch (`preloaded.py`), and killed at fault points."""

import os
import subprocess
from pathlib import Path

from llf_core.runs import RunReader


class ForkedTrainer:
    """Starts trainers of run folders, one after the other.

    Args:
        python: the interpreter of the process that forks them.
    """

    expected = None
    """What the tests of a module compare with, made once for all of them."""

    def __init__(self, python):
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name("preloaded.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, bufsize=1, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def start(self, folder, fault=""):
        """Starts a trainer, which SIGKILL ends at a fault point (`metrics.append:5`); returns its process id."""
        print(f"{folder.path} {fault}", file=self.process.stdin, flush=True)
        while (answer := self._answer())[0] == "ended":  # a trainer that a failed test has not waited for
            pass
        return answer[1]

    def wait(self):
        """Waits for the trainer; returns its exit code, negative for a signal."""
        word, code = self._answer()
        assert word == "ended"
        return code

    def _answer(self):
        word, number = self.process.stdout.readline().split()
        return word, int(number)

    def run(self, folder, fault=""):
        self.start(folder, fault)
        return self.wait()

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=120)


def losses(folder):
    """Losses of training and evaluation by step, as hex, so that equal means equal to the last bit."""
    columns = RunReader(folder).metrics()
    return {
        name: dict(zip(columns.steps(name).tolist(), [v.hex() for v in columns.values(name).tolist()], strict=True))
        for name in ("loss", "eval_loss")
    }
