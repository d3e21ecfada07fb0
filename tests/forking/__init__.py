"""Interpreters that have libraries loaded when they begin: forks of one process, started as `python` is."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Literal

from ipykernel.kernelspec import write_kernel_spec

HERE = Path(__file__).parent
STARTUP = """
import sys
import ipywidgets
sys.executable = {python!r}
ipywidgets.register_comm_target()  # as its first import in a kernel does
del ipywidgets, sys
"""


class ForkServer:
    """The process that forks, and `python`, which stands for the interpreter.

    Args:
        folder: an empty one for its socket and its `python`.
        kind: what is loaded: torch with all that `trainers` need, or what Jupyter `kernels` need.
    """

    def __init__(self, folder: Path, kind: Literal["trainers", "kernels"] = "trainers") -> None:
        address = folder / "socket"
        self.python = folder / "python"
        client = [sys.executable, "-IS", str(HERE / "client.py"), str(address), sys.executable, str(self.python)]
        self.python.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
        self.python.chmod(0o755)
        self._process = subprocess.Popen(
            [sys.executable, HERE / "server.py", address, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        """Ends the server; what it has forked ends with its own `python`."""
        self._process.kill()
        self._process.wait()


def warm_jupyter(profiles: Path, share: Path, kernels: ForkServer, trainers: ForkServer) -> None:
    """Has Jupyter's Python kernels begin with their libraries loaded, and what they start with torch loaded.

    Args:
        profiles: the `IPYTHONDIR` of the kernels.
        share: a folder of the `JUPYTER_PATH` of whoever starts kernels.
        kernels: forks the kernels.
        trainers: forks what the kernels start with `sys.executable`.
    """
    argv = [str(kernels.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    write_kernel_spec(share / "kernels" / "python3", {"argv": argv})
    startup = profiles / "profile_default" / "startup" / "00-warm.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(STARTUP.format(python=str(trainers.python)))
