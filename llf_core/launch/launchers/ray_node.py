"""The task of a Ray cluster that supervises a run; run and task end together."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import llf_core
from llf_core.launch.local_process import THREAD_VARIABLES
from llf_core.runs import RunFolder, read_status
from llf_core.runs.files import open_to_append
from llf_core.runs.listing import shown_status
from llf_core.runs.process import host

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def supervise(path: str, attempt: int, version: str, command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Start the supervisor of the current attempt on this node, and return when the run has ended.

    Raises:
        RuntimeError: this node does not have the run's folder, has another LLF, or the supervisor did not start.
    """
    folder = RunFolder(Path(path))
    if not folder.status.exists():
        raise RuntimeError(f"The node {host()} does not have the folder {path}. All nodes must share LLF_HOME.")
    if llf_core.__version__ != version:
        raise RuntimeError(f"The node {host()} has LLF {llf_core.__version__}. Expected {version}, as on this machine.")
    now = read_status(folder)
    if now.attempt != attempt or now.final:
        return
    folder.queue.unlink(missing_ok=True)
    # Ray's worker has as many threads as the task has cores, of all processes together.
    own = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    arguments = [path, "--held", *(("--", *command) if command else ())]
    with open_to_append(folder.log) as log:
        started = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", "llf_core.launch.supervisor_process", *arguments],
            stdin=subprocess.PIPE,  # ends with this process
            stdout=log,
            stderr=log,
            env={**variables, **own, "LLF_HOME": str(folder.home)},
            start_new_session=True,
        )
    if started.wait():
        raise RuntimeError(f"The run's supervisor did not start on the node {host()}.")
    raylet = os.getppid()
    while not (now := shown_status(folder)).has_ended or (now.supervisor_process and now.supervisor_process.alive()):
        if os.getppid() != raylet:  # the node has left the cluster, or lost its head: this process may outlive it
            os._exit(1)
        time.sleep(0.5)
