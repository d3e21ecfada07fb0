"""Interpreters that have torch loaded when they begin: forks of one process, started as `python` is."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


class ForkServer:
    """The process that forks, and `python`, which stands for the interpreter.

    Args:
        folder: an empty one for its socket and its `python`.
    """

    def __init__(self, folder: Path) -> None:
        address = folder / "socket"
        self.python = folder / "python"
        client = [sys.executable, "-IS", str(HERE / "client.py"), str(address), sys.executable, str(self.python)]
        self.python.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
        self.python.chmod(0o755)
        self._process = subprocess.Popen(
            [sys.executable, HERE / "server.py", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def serve_kernels(self, profiles: Path) -> None:
        """Has Jupyter kernels start their processes with this `python`.

        Args:
            profiles: the `IPYTHONDIR` of the kernels.
        """
        startup = profiles / "profile_default" / "startup" / "00-executable.py"
        startup.parent.mkdir(parents=True)
        startup.write_text(f"import sys\nsys.executable = {str(self.python)!r}\ndel sys\n")

    def close(self) -> None:
        """Ends the server; what it has forked ends with its own `python`."""
        self._process.kill()
        self._process.wait()
