"""Executes a notebook, and shows in the terminal how the run that it starts goes on: `execute.py NOTEBOOK FOLDER`."""

from __future__ import annotations

import subprocess
import sys
import time

from llf_core.launch.run import ProgressLine
from llf_core.runs import RunFolder, RunReader, home, list_runs

OPTIONS = (
    "--execute",
    "--ExecutePreprocessor.store_widget_state=False",
    "--KernelManager.transport_encryption=auto",
)


def newest() -> str | None:
    """Id of the newest run; None if there is none."""
    rows = list_runs(limit=1).rows
    return rows[0].id if rows else None


def main(notebook: str, folder: str) -> int:
    """Execute a notebook into a folder; returns the exit code of nbconvert."""
    before = newest()
    print(f"Executing {notebook}. Its run takes a minute or two on two idle cores.", flush=True)
    command = ["jupyter", "nbconvert", "--to", "notebook", *OPTIONS, "--output-dir", folder, notebook]
    reader, line = None, None
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            found = newest()
            if reader is None and found not in {None, before}:
                print(f"Run {found}", flush=True)
                reader = RunReader(RunFolder(home() / "runs" / found))
                line = ProgressLine(reader)
            if line is not None:
                line.show(reader.status())
            time.sleep(0.5)
    if line is not None:
        line.show(reader.status())
        line.close()
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
